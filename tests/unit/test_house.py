"""The house: its floors, who may call whom, and what must not stand anywhere."""

import ast
import re
import subprocess

FLOORS = [
    "records",
    "selection",
    "world",
    "data",
    "models",
    "tasks",
    "evaluation",
    "experiment",
    "training",
    "report",
    "split",
    "jobs",
]
"""Rooms of the package from the ground up; a file imports from its own room and from those below."""
FRONT_DOOR = {"__init__.py", "__main__.py", "cli.py"}


def imports_of(path):
    """Rooms of the package that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "sstoken":
            below = node.module.split(".")[1:]
            yield from below[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sstoken."))


def test_a_file_imports_only_from_its_own_floor_and_those_below(root):
    package = root / "sstoken"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(FLOORS)
    assert {path.name for path in package.glob("*.py")} <= FRONT_DOOR
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        if room in FLOORS:
            above = set(imports_of(path)) - set(FLOORS[: FLOORS.index(room) + 1])
            assert not above, f"{path} imports from {above}"


def test_the_selection_module_knows_tensors_only(root):
    for path in (root / "sstoken" / "selection").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                assert name.split(".")[0] in {
                    "torch",
                    "numpy",
                    "fractions",
                    "functools",
                    "typing",
                    "dataclasses",
                    "contextlib",
                    "__future__",
                }, path


def test_only_evaluation_calls_lm_eval(root):
    package = root / "sstoken"
    importing = [
        p for p in package.rglob("*.py") if re.search(r"^\s*(import|from) lm_eval", p.read_text(), re.MULTILINE)
    ]
    users = {p.relative_to(package).parts[0] for p in importing}
    assert users == {"evaluation"}


def test_workflow_files_stay_small(root):
    lines = {
        p: len(p.read_text().splitlines())
        for p in [root / "Snakefile", *(root / "workflow").rglob("*.*")]
        if p.is_file()
    }
    assert lines[root / "Snakefile"] <= 45
    assert lines[root / "workflow/rules/common.smk"] <= 120
    assert all(n <= 30 for p, n in lines.items() if p.parent.name == "scripts" and p.suffix == ".py")
    for path in (root / "workflow" / "scripts").glob("*.py"):
        assert "snakemake.config" not in path.read_text()


def test_no_pickle_no_remote_code_no_machine_paths(root):
    listed = subprocess.run(["git", "ls-files", "*.py", "*.smk", "*.yaml"], cwd=root, capture_output=True, text=True)
    tracked = listed.stdout.split()
    for name in tracked:
        text = (root / name).read_text()
        if name != "tests/unit/test_house.py":
            assert not re.search(r"torch\.load\(|import pickle|trust_remote_code=True|shell=True", text), name
