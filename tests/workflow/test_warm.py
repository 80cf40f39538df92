"""Jobs forked from a process that has loaded their libraries: as if each had been started by itself, only sooner."""

import importlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from snakemake.script import PythonScript

from sstoken.experiment.warm import WarmParent, can_watch, environment, fetches, use_warm_jobs
from sstoken.jobs.warm import LIBRARIES
from tests.flow import same_rows

pytestmark = pytest.mark.skipif(not can_watch(), reason="each job starts in a Python of its own here")


@pytest.fixture
def parent(root, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setitem(LIBRARIES, "nothing", ())
    known = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    parent = WarmParent()
    yield parent
    signal.signal(signal.SIGINT, known)
    if parent.process:
        parent._stop(parent.process, parent.requests)


def script(tmp_path, text, name="world"):
    path = tmp_path / f"tmp.{name}.py"
    path.write_text(f"import os, signal, sys\nfrom pathlib import Path\nout = Path({str(tmp_path)!r})\n{text}")
    return str(path)


def test_every_script_that_is_named_exists_and_so_do_its_libraries(root):
    assert set(LIBRARIES) <= {path.stem for path in (root / "workflow" / "scripts").glob("*.py")}
    for name in {name for names in LIBRARIES.values() for name in names}:
        importlib.import_module(name)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('no')", 1),
        ("sys.exit('words')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_the_exit_status_is_the_scripts(parent, tmp_path, text, code):
    assert parent.run(script(tmp_path, text), environment(1, None)) == code


def test_a_job_is_as_if_it_had_been_started_alone(parent, tmp_path, monkeypatch):
    seen = """
import torch
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "sstoken")
(out / "seen").write_text(repr([loaded, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], "LATER" in os.environ, sys.argv,
    __name__, sys.stdin.read(), signal.getsignal(signal.SIGINT) is signal.default_int_handler, os.environ["TMPDIR"],
    sorted(os.listdir("/proc/self/fd"))[3:-1]]))
"""
    path = script(tmp_path, seen)
    monkeypatch.setenv("LATER", "set after the parent had started")
    assert parent.run(script(tmp_path, "", "losses"), environment(1, None)) == 0
    assert parent.run(path, environment(2, str(tmp_path))) == 0
    expected = [[], 2, "2", True, [path], "__main__", "", True, str(tmp_path), []]
    assert (tmp_path / "seen").read_text() == repr(expected)


def test_a_job_finds_modules_where_a_script_does_and_not_in_the_working_folder(parent, tmp_path, monkeypatch):
    (tmp_path / "yaml.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    text = "import yaml\n(out / (sys.argv[1:] or ['warm'])[0]).write_text(repr(sys.path[:3]))"
    path = script(tmp_path / "scripts", text, "losses")
    assert parent.run(path, environment(1, None)) == 0
    subprocess.run([sys.executable, path, "cold"], env=environment(1, None), check=True)
    assert (tmp_path / "scripts" / "warm").read_text() == (tmp_path / "scripts" / "cold").read_text()


def test_jobs_that_set_no_seed_do_not_draw_the_same(parent, tmp_path):
    for name in "ab":
        text = f"import random, numpy\n(out / {name!r}).write_text(repr([random.random(), numpy.random.rand()]))"
        assert parent.run(script(tmp_path, text), environment(1, None)) == 0
    a, b = (eval((tmp_path / name).read_text()) for name in "ab")
    assert a[0] != b[0] and a[1] != b[1]


def test_a_library_that_does_not_load_ends_no_other_job(parent, tmp_path, monkeypatch):
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "jinja2.py").write_text("raise RuntimeError('made for another version')")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}:{tmp_path / 'library'}")
    codes = []
    text = "import time\n(out / 'runs').touch()\nwhile not (out / 'end').exists(): time.sleep(0.01)"
    long = script(tmp_path, text)
    thread = threading.Thread(target=lambda: codes.append(parent.run(long, environment(1, None))), daemon=True)
    thread.start()
    while not (tmp_path / "runs").exists():
        time.sleep(0.05)
    assert parent.run(script(tmp_path, "", "audit_page"), environment(1, None)) == 0
    assert parent.run(script(tmp_path, "import jinja2", "audit_page"), environment(1, None)) == 1
    (tmp_path / "end").touch()
    thread.join(60)
    assert codes == [0]


def asked(parent, path):
    """The parent and a job that has been asked for, while its libraries load."""
    codes = []
    thread = threading.Thread(target=lambda: codes.append(parent.run(path, environment(1, None))), daemon=True)
    thread.start()
    while parent.process is None or not parent.waiting:
        time.sleep(0.01)
    return thread, codes


def test_sigint_while_libraries_load_begins_no_job(parent, tmp_path):
    thread, codes = asked(parent, script(tmp_path, "(out / 'ran').touch()"))
    parent.process.send_signal(signal.SIGINT)
    thread.join(60)
    assert codes == [-signal.SIGINT]
    assert not (tmp_path / "ran").exists()


def test_a_job_that_cannot_be_started_fails_alone(parent, tmp_path):
    assert parent.run(script(tmp_path, ""), environment(1, None)) == 0
    known = resource.prlimit(parent.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(parent.process.pid, resource.RLIMIT_NOFILE, (3, known[1]))  # no handle more
    assert parent.run(script(tmp_path, ""), environment(1, None)) == 1
    resource.prlimit(parent.process.pid, resource.RLIMIT_NOFILE, known)
    before = parent.process.pid
    assert parent.run(script(tmp_path, "sys.exit(5)"), environment(1, None)) == 5 and parent.process.pid == before


def test_no_job_begins_after_its_workflow(parent, tmp_path):
    thread, codes = asked(parent, script(tmp_path, "(out / 'ran').touch()"))
    while not parent.waiting:
        time.sleep(0.01)
    with parent.lock:  # the request is written
        process = parent.process
        parent.requests.close()
    assert process.wait(60) == 0
    thread.join(60)
    assert codes == [None]
    assert not (tmp_path / "ran").exists()


def test_an_older_kernel_starts_each_job_by_itself(monkeypatch):
    def missing(_):
        raise OSError(38, "Function not implemented")

    before = PythonScript.execute_script
    monkeypatch.setattr(os, "pidfd_open", missing)
    assert not can_watch()
    use_warm_jobs(LIBRARIES)
    assert PythonScript.execute_script is before


@pytest.mark.parametrize("hub", [False, True])
def test_only_jobs_that_fetch_have_the_hub(root, tmp_path, monkeypatch, hub):
    """Its library reads whether it is switched off when it is loaded, which is before a job's first line."""
    for name, value in {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "SSTOKEN_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    parent = WarmParent(hub)
    text = "from huggingface_hub import constants\nsys.exit(10 + constants.HF_HUB_OFFLINE)"
    assert parent.run(script(tmp_path, text, "model"), environment(1, None)) == (10 if hub else 11)
    parent._stop(parent.process, parent.requests)


@pytest.mark.parametrize(("rule", "code"), [("fetch_model", 10), ("model", 11)])
def test_a_rule_gets_the_parent_that_it_needs(root, tmp_path, monkeypatch, rule, code):
    """Both run the same script."""
    for name, value in {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "SSTOKEN_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(PythonScript, "execute_script", PythonScript.execute_script)  # put back afterwards
    use_warm_jobs(LIBRARIES)
    job = SimpleNamespace(
        container_img=None, conda_env=None, env_modules=None, rulename=rule, threads=1, resources={}, bench_record=None
    )
    text = "from huggingface_hub import constants\nsys.exit(10 + constants.HF_HUB_OFFLINE)"
    with pytest.raises(subprocess.CalledProcessError) as error:
        PythonScript.execute_script(job, script(tmp_path, text, "model"))
    assert error.value.returncode == code


def test_the_rules_that_fetch_are_those_whose_jobs_may_switch_the_hub_on(root):
    for path in (root / "workflow" / "rules").glob("*.smk"):
        for rule, script in re.findall(
            r"^rule (\w+):.*?script:\s+\"../scripts/(\w+).py\"", path.read_text(), re.M | re.S
        ):
            assert fetches(rule) == (path.stem == "fetch"), (rule, script)


def test_jobs_run_at_the_same_time_and_each_is_told_its_own_end(parent, tmp_path):
    wait = "import time\n(out / '{0}').touch()\nwhile not (out / '{1}').exists(): time.sleep(0.01)\nsys.exit({2})"
    codes = {}

    def run(one, other, code):
        folder = tmp_path / one
        folder.mkdir()
        text = wait.format(one, other, code).replace("out /", f"Path({str(tmp_path)!r}, 'flags') /")
        codes[one] = parent.run(script(folder, text), environment(1, None))

    (tmp_path / "flags").mkdir()
    threads = [threading.Thread(target=run, args=case) for case in (("a", "b", 4), ("b", "a", 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == {"a": 4, "b": 5}


def test_where_the_parent_dies_its_job_ends_with_it_and_the_next_gets_another(parent, tmp_path):
    codes = []
    text = "import time\n(out / 'pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    thread = threading.Thread(
        target=lambda: codes.append(parent.run(script(tmp_path, text), environment(1, None))), daemon=True
    )
    thread.start()
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    parent.process.kill()
    thread.join(60)
    assert codes == [None]
    job = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not runs(job):
            break
        time.sleep(0.05)
    assert not runs(job)
    assert parent.run(script(tmp_path, "sys.exit(7)"), environment(1, None)) == 7


def runs(pid):
    """A killed process may wait to be fetched by its new parent."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_results_are_those_of_jobs_that_start_alone(ci, workflow):
    """One method of ci.yaml again, each job in a Python of its own: adapter, selection, samples and scores, bit for bit."""
    one = {"models": ["tiny-llama"], "methods": ["sstoken"], "seeds": [0]}
    command = workflow.command(workflow.configuration("ci", **one))
    done = subprocess.run(command, cwd=workflow.folder, env=workflow.environment() | {"SSTOKEN_COLD_JOBS": "1"})
    assert done.returncode == 0
    warm, cold = ci.results("ci"), workflow.results("ci")
    files = [path.relative_to(cold) for path in cold.glob("runs/**/*.safetensors")]
    assert len(files) == 2
    for path in files:
        mine, theirs = load_file(cold / path), load_file(warm / path)
        assert mine.keys() == theirs.keys()
        assert all(mine[key].numpy().tobytes() == theirs[key].numpy().tobytes() for key in mine)
    same_rows(cold, warm, one)


HELD = """
import os, signal, sys, threading
from sstoken.experiment.asked_to_end import end_when_asked
lock, told = threading.Lock(), threading.Event()
def asked(*_):
    with lock:
        told.set()
signal.signal(signal.SIGTERM, asked)
if "mended" in sys.argv:
    end_when_asked()
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass
print(told.wait(20))
"""


def test_sigterm_while_the_scheduler_holds_its_lock_ends_the_workflow_and_does_not_hang_it(root):
    """As Snakemake's own handler would: it waits in the main thread for what the main thread holds."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", HELD, "mended"], env=environment, capture_output=True, timeout=60)
    assert b"asked to end (SIGTERM)" in done.stdout and done.stdout.endswith(b"True\n")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", HELD], env=environment, capture_output=True, timeout=5)
