"""The package as its user gets it: built, installed without the checkout, and every Python example run from there."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"(?:<!-- needs: (?P<needs>.+?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOUND = [
    pytest.param(
        found["code"],
        found["needs"],
        id=f"{page.relative_to(ROOT)}:{page.read_text()[: found.start()].count(chr(10)) + 1}",
    )
    for page in PAGES
    for found in EXAMPLE.finditer(page.read_text())
]

pytestmark = pytest.mark.trains


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    # in a copy: a build leaves its folders beside the sources
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "sstoken", source / "sstoken", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def pip(*words):
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def run(site, folder, *words):
    """Python in ``folder``, with the installed package and without the checkout."""
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_carries_all_that_the_package_reads(wheel):
    carried = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "sstoken"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert listed and not set(listed) - carried
    assert not [
        name for name in carried if "__pycache__" in name or name.startswith(("tests", "benchmarks", "workflow"))
    ]
    metadata = zipfile.ZipFile(wheel).read(next(name for name in carried if name.endswith("/METADATA"))).decode()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Dist: snakemake" in metadata
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert needed and not [line for line in needed if "snakemake" in line or "lm-eval" in line]


def test_everything_is_found_from_where_it_is_installed(site, tmp_path):
    code = f"""
import sstoken
assert sstoken.__file__.startswith({str(site)!r}), sstoken.__file__
from sstoken.experiment.config import check_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.plan import Plan
from sstoken.experiment.plan_text import render
from sstoken.selection.methods import load_methods
data = {{name: {{"sources": ["{{world}}/train.jsonl"]}} for name in ("train", "reference")}}
config = {{"experiment": "x", "models": ["world-llama-small"], "methods": ["sstoken", "rho1"], "data": data, "world": {{}},
          "benchmarks": ["arc_easy"], "benchmarks_file": "sstoken/world/benchmarks.tsv",
          "benchmarks_data": "{{world}}/benchmarks",
          "plan": {{"samples": {{"train": 10, "reference": 10}}}}}}
grid = Grid(check_config(config, ["x"]))
from sstoken.experiment.check import check
check(grid)
print(render(Plan(grid.config), []))
assert "sstoken" in load_methods()
from pathlib import Path
from sstoken.models.sources import materialise
materialise(grid.models["world-llama-small"], Path("model"))
assert Path("model/model.safetensors").exists()
"""
    done = run(site, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| total |" in done.stdout


def test_the_command_is_installed_and_works(site, tmp_path):
    assert "sstoken = sstoken.cli:main" in next(site.glob("*.dist-info/entry_points.txt")).read_text()
    done = run(site, tmp_path, "-m", "sstoken", "methods")
    assert done.returncode == 0 and "semantic-aware" in done.stdout
    done = run(site, tmp_path, "-m", "sstoken", "doctor")
    assert done.returncode == 0 and "nothing here would stop a run" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("code", "needs"), FOUND)
def test_every_python_example_runs_from_there(site, tmp_path, code, needs):
    if needs:
        pytest.skip(f"needs {needs}")
    path = tmp_path / "example.py"
    path.write_text(code)
    done = run(site, tmp_path, "-P", str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    if "SelectionTrainer(" in code:
        assert re.search(r"kept \d+% of the response tokens", done.stdout), done.stdout[-500:]


def test_there_are_examples():
    assert sum(parameters.values[1] is None for parameters in FOUND) >= 4


def test_the_site_builds_without_a_warning(tmp_path):
    if subprocess.run([sys.executable, "-m", "mkdocs", "--version"], capture_output=True).returncode:
        pytest.skip("mkdocs is not installed here; make docs builds the site in an environment of its own")
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
