"""The Makefile: what cannot be is one line, settings keep their quotes and blanks, and pip is quiet unless it fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *"pip install"*) echo "WARNING: Location 'file:///x/' is ignored: it is neither a file nor a directory." >&2
                   test -z "$PIP_FAILS" || { echo "ERROR: no such package" >&2; exit 1; } ;;
esac
"""

pytestmark = pytest.mark.trains


def make(folder, *words, **environment):
    return subprocess.run(
        ["make", "--silent", *words], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture
def checkout(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("sstoken", "config", "workflow", "Snakefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "results").mkdir()
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    return tmp_path


@pytest.mark.parametrize("target", ["reproduce", "plan", "report", "fetch"])
def test_an_unknown_configuration_is_one_line(checkout, target):
    done = make(checkout, target, f"PYTHON={sys.executable}", "CONFIG=config/nowhere.yaml")
    lines = [line for line in done.stderr.splitlines() if not re.match(r"make(\[\d+\])?:", line)]
    assert done.returncode and len(lines) == 1 and "config/nowhere.yaml: no such file" in lines[0], done.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds=3", "write seeds=[3]"),
        ("training={learning_rate: 0.02", "not valid YAML"),
        ("data={train: {sources: ['my rows/a b.jsonl']}}", "my rows/a b.jsonl: no such file"),
        ("instruct_data='it is", "a quote is not closed"),
        ("training.learning_rat=1e-3", "Did you mean 'learning_rate'"),
    ],
)
def test_a_setting_reaches_python_as_it_was_written(checkout, setting, message):
    done = make(checkout, "reproduce", f"PYTHON={sys.executable}", "CONFIG=config/ci.yaml", f"SET={setting}")
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SETS=seeds=[0]"], "unknown variable SETS; known: CONFIG, SET"),
        (["seeds=[0]"], "unknown variable seeds"),
        (["PYTHON=/no/python"], "PYTHON=/no/python: no such program"),
    ],
)
def test_a_word_that_make_would_pass_over_is_an_error(checkout, words, message):
    done = make(checkout, "--dry-run", "reproduce", *words)
    assert done.returncode and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_every_variable_that_the_makefile_explains_is_known(checkout):
    words = [
        "CONFIG=a.yaml",
        "SET=seeds=[0]",
        f"PYTHON={sys.executable}",
        "TORCH_INDEX=x",
        "BENCH=--all",
        "BASE_PYTHON=python3",
    ]
    done = make(checkout, "--dry-run", "reproduce", *words)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_installing_is_quiet_and_what_fails_is_shown(checkout):
    python = checkout / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = make(checkout, ".venv/.installed", f"BASE_PYTHON={python}")
    assert done.returncode == 0 and done.stderr == "" and "WARNING" not in done.stdout, done
    shutil.rmtree(checkout / ".venv")
    done = make(checkout, ".venv/.installed", f"BASE_PYTHON={python}", PIP_FAILS="1")
    assert done.returncode and "ERROR: no such package" in done.stderr
    assert not (checkout / ".venv" / ".installed").exists()


def test_a_lock_that_cannot_be_made_leaves_the_old_one(checkout):
    (checkout / ".lock").mkdir()
    (checkout / ".lock" / ".installed").touch()
    before = (checkout / "requirements.lock").read_bytes()
    python = checkout / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    done = make(checkout, "lock", f"PYTHON={python}")
    assert done.returncode and (checkout / "requirements.lock").read_bytes() == before, done


def test_a_checkout_in_a_path_with_blanks_and_other_letters_works(checkout):
    folder = checkout / "my runs – größer"
    shutil.copytree(checkout, folder, symlinks=True, ignore=shutil.ignore_patterns("my runs*"))
    done = make(folder, "reproduce", f"PYTHON={sys.executable}", "CONFIG=config/ci.yaml", "SET=models=[tiny-lama]")
    assert done.returncode and "Did you mean 'tiny-llama'" in done.stderr, done.stderr


HOMELESS = """
import os, pwd, sys
from sstoken.experiment.start import settle
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
settle()
print(os.environ["HOME"], os.environ.get("HF_HOME"), os.environ["USER"])
"""


@pytest.mark.parametrize("home", ["/nonexistent", None])
def test_who_has_no_home_and_no_name_gets_both(tmp_path, home):
    environment = {
        key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "XDG_CACHE_HOME", "HF_HOME")
    }
    environment |= {"PYTHONPATH": str(ROOT)} | ({"HOME": home} if home else {})
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    own = tmp_path / ".snakemake" / "home"
    assert done.stdout.split() == [str(own), "None", f"user{os.getuid()}"] and own.is_dir()
    assert done.stderr.endswith(".snakemake/home is the home of this run\n")
