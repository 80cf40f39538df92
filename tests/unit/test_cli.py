"""The command line as its user meets it: help, exit status, one-line errors, what each command says."""

import json
import subprocess
import sys

import pytest

from sstoken import cli
from sstoken.experiment import doctor
from sstoken.experiment.config import check_config
from sstoken.experiment.grid import Grid
from tests.unit.test_config import MINIMAL

COMMANDS = ("methods", "plan", "report", "results", "doctor", "status", "audit", "explain", "show", "compare")


def sstoken(capsys, *words):
    """(exit status, stdout, stderr)"""
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    shown = capsys.readouterr()
    code = end.value.code
    if isinstance(code, str):
        return 1, shown.out, shown.err + code + "\n"
    return code or 0, shown.out, shown.err


def test_help_teaches_by_example(capsys):
    status, text, _ = sstoken(capsys, "--help")
    assert status == 0 and "sstoken plan config/paper.yaml seeds=[0]" in text and "key=value" in text
    for command in COMMANDS:
        assert f"    {command} " in text
        status, own, _ = sstoken(capsys, command, "--help")
        assert status == 0 and f"sstoken {command}" in own.partition("examples:")[2]


def test_methods_lists_every_method_with_equation_needs_cost_and_source(capsys):
    status, text, _ = sstoken(capsys, "methods", "--json")
    found = {item["name"]: item for item in json.loads(text)}
    assert status == 0 and {"base", "full", "sstoken", "rho1", "oracle"} <= set(found)
    for item in found.values():
        assert {"name", "source", "needs", "kind"} <= set(item)
        assert item["kind"] in ("mask", "weight", "rows", "bound", "control") and item["source"]
        assert item["equation"] or item["name"] == "base", item["name"]
    assert found["rho1"]["equation"].startswith("score_i = L_θ(x_i) - L_ref(x_i), θ = the current model")
    assert found["rho1"]["cost"] == "a reference model and 1 pass of it (shared)"
    assert found["sstoken"]["needs"] == ["attention_mass", "history_loss", "loss"]
    assert found["semantic-aware"]["cost"] == "none" and found["oracle"]["kind"] == "bound"
    _, text, _ = sstoken(capsys, "methods")
    assert all(name in text for name in found) and "arXiv 2510.18250, Eq. 9" in " ".join(text.split())


def test_methods_of_a_configuration_are_listed_too(capsys, tmp_path):
    path = tmp_path / "x.yaml"
    own = {"own_methods": {"mine": {"extends": "sstoken", "keep_ratio": 0.1, "source": "me"}}}
    path.write_text(json.dumps(MINIMAL | own))
    status, text, _ = sstoken(capsys, "methods", str(path), "--json")
    assert status == 0 and "mine" in [item["name"] for item in json.loads(text)]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["plan", "nowhere.yaml"], 1, "sstoken plan: nowhere.yaml: no such file"),
        (["plan", "config/ci.yaml", "seeds=3"], 1, "write seeds=[3]"),
        (["plan", "config/ci.yaml", "benchmarks=[gsm8k]"], 1, "unknown benchmark 'gsm8k'"),
        (["plan", "config/ci.yaml", "methods=[sstokn]"], 1, "Did you mean 'sstoken'"),
        (["plan", "config/ci.yaml", "nonsense"], 1, "is not key=value"),
        (["report", "config/ci.yaml", "experiment=nothing-of-that-name"], 1, "no run has been evaluated yet"),
        (["status", "nowhere.yaml"], 1, "sstoken status: nowhere.yaml: no such file"),
        (["audit", "config/ci.yaml", "seeds=3"], 1, "write seeds=[3]"),
        (["show", "results/nowhere/runs/a/b/seed0"], 1, "run.json: no such file"),
        (["compare", "results/nowhere", "results/elsewhere"], 1, "samples.parquet: no such file"),
        (["explain", "nowhere.jsonl", "--model", "nobody"], 1, "sstoken explain: nobody: neither a folder"),
        (["results", "nowhere.md"], 1, "sstoken results: nowhere.md: No such file"),
        (["plan"], 2, "required: config"),
        (["plan", "config/ci.yaml", "--gpus", "0"], 2, "is no number of GPUs"),
        (["nonsense"], 2, "invalid choice"),
        ([], 2, "required: COMMAND"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, root, monkeypatch, words, status, message):
    monkeypatch.chdir(root)
    found, out, text = sstoken(capsys, *words)
    assert (found, out) == (status, "") and message in text and "Traceback" not in text
    assert status == 2 or text.count("\n") == 1


def test_a_fault_of_the_program_is_not_dressed_up(monkeypatch):
    monkeypatch.setattr(cli, "_plan", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["plan", "x.yaml"])


def test_help_is_quick():
    """It must not import what only work needs."""
    code = "import sys, sstoken.cli as c; c._parser(); print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def small_grid(**settings):
    return Grid(check_config(MINIMAL | {"benchmarks_data": "benchmarks"} | settings, ["x.yaml"]))


def stops(findings):
    return [finding.what for finding in findings if finding.stops]


def test_doctor_names_what_would_stop_a_run_and_says_so_by_its_status(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert stops(doctor.examine()) == []
    status, text, _ = sstoken(capsys, "doctor")
    assert status == 0 and "nothing here would stop a run" in text and "HF_HUB_OFFLINE" in text
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(MINIMAL | {"benchmarks_data": "nowhere"}))
    status, text, _ = sstoken(capsys, "doctor", str(path))
    assert status == 1 and "STOP  benchmarks_data: no folder nowhere" in text and "2 things would stop a run" in text


def test_doctor_finds_each_kind_of_obstacle(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert stops(doctor._python(None)) == ["Python 3.10.1: 3.11 or newer is needed"]
    versions = {"torch": "2.9.0"}
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: versions.get(name) or real(name))
    assert "torch 2.9.0 is not <3,>=2.11" in stops(doctor._packages(None))[0]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e9}))
    assert "1 GB free" in stops(doctor._disk(None))[0]
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert any("permission denied" in what for what in stops(doctor._permissions(None)))


def test_doctor_knows_whether_the_hub_is_needed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert stops(doctor._hub(small_grid())) == []
    needing = small_grid(data={"train": {"sources": ["hub:a/b@main"]}})
    assert "does not answer, and 1 files" in stops(doctor._hub(needing))[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert stops(doctor._hub(needing)) == []


def test_status_names_what_is_missing(capsys, root, monkeypatch):
    monkeypatch.chdir(root)
    status, text, _ = sstoken(capsys, "status", "config/ci.yaml", "experiment=nothing-of-that-name", "methods=[full]")
    assert status == 0 and "missing" in text and "full seed 0" in text


def test_explain_shows_which_tokens_would_be_kept(capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "what is it ?", "completion": "it is a thing ."}) + "\n")
    status, text, _ = sstoken(
        capsys, "explain", str(path), "--model", "world-llama-small", "--methods", "semantic-aware"
    )
    assert status == 0 and "semantic-aware" in text and "Nothing was trained" in text
