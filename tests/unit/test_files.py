"""Files that are whole or not there, and readable for whom the umask lets."""

import os
import subprocess
import sys
import tempfile

import pytest
import torch
from safetensors.torch import save_file

from sstoken.records.files import atomic_write, order_metadata, whole_folder


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_the_umask_holds_for_safetensors_too(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(2)}, temporary)
        with whole_folder(tmp_path / "run", "run.json") as folder:
            save_file({"a": torch.zeros(2)}, folder / "b.safetensors")
    finally:
        os.umask(before)
    for name in ("a.safetensors", "run/b.safetensors"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def run_of(folder, **files):
    with whole_folder(folder, "run.json") as new:
        for name, text in files.items():
            (new / name).write_text(text)
    (folder / "run.json").write_text("{}")


def test_a_run_that_cannot_write_takes_nothing_away(tmp_path):
    run_of(tmp_path / "run", adapter="old", log="old")
    (tmp_path / "run" / "part0").mkdir()
    with pytest.raises(OSError, match="no room"), whole_folder(tmp_path / "run", "run.json") as new:
        (new / "adapter").write_text("half")
        raise OSError("no room")
    assert (tmp_path / "run" / "adapter").read_text() == "old" and (tmp_path / "run" / "run.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_new_files_take_the_place_of_old_ones_and_of_none_beside_them(tmp_path):
    run_of(tmp_path / "run", adapter="old", log="old")
    (tmp_path / "run" / "part0").mkdir()
    (tmp_path / "run" / ".run.lock").touch()
    (tmp_path / ".run.99.part").mkdir()  # left by a killed job
    with whole_folder(tmp_path / "run", "run.json") as new:
        (new / "weights").write_text("new")
        assert (tmp_path / "run" / "run.json").exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".run.lock", "part0", "weights"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


TWO_USERS = """
import os, sys
from pathlib import Path
from sstoken.records.files import whole_folder
from sstoken.records.locks import locked
from sstoken.records.provenance import Record
def run(folder, text):
    with locked(folder / ".lock", wait=False), locked(folder / "run" / ".run.lock"):
        with whole_folder(folder / "run", "run.json") as new:
            (new / "adapter.safetensors").write_text(text)
        Record.rewrite(folder / "run" / "run.json", {"by": text})
os.umask(0o002)
folder = Path(sys.argv[1])
run(folder / "warm", "root")  # all is imported: the others may not read this interpreter's folders
shared = folder / "shared"
shared.mkdir()
os.chown(shared, 0, 60000)
os.chmod(shared, 0o2775)
os.chmod(folder, 0o755)
for user in (50001, 50002, 50001):
    child = os.fork()
    if not child:
        os.setgroups([]), os.setgid(60000), os.setuid(user)
        run(shared, str(user))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, user
    assert (shared / "run" / "adapter.safetensors").read_text() == str(user)
    assert f'"by": "{user}"' in (shared / "run" / "run.json").read_text()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become two users")
def test_two_users_of_a_group_write_into_one_folder_in_turn():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", TWO_USERS, folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_same_content_has_the_same_bytes_whatever_the_order_of_its_metadata(tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {"b": torch.arange(5), "a": torch.ones(2, 3)}
    metadata = {name: f'{name} é \n " {i}' for i, name in enumerate("zyxwvutsr")}
    content = set()
    for i in range(4):
        words = dict(sorted(metadata.items(), reverse=i % 2 == 0))
        save_file(tensors, tmp_path / f"{i}", metadata=words)
        order_metadata(tmp_path / f"{i}")
        content.add((tmp_path / f"{i}").read_bytes())
        with safe_open(tmp_path / f"{i}", framework="pt") as file:
            assert file.metadata() == metadata and file.get_tensor("a").equal(tensors["a"])
            assert file.get_tensor("b").equal(tensors["b"])
    assert len(content) == 1
