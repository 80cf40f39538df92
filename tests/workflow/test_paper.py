"""paper.yaml: what it plans is what the documentation says, quickly and without network."""

import re
import resource

import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid


def counts_of(text):
    """rule -> jobs, as Snakemake's closing statistics say."""
    table = text.split("Job stats:")[1].split("\n\n")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


def documented(root):
    rows = re.findall(r"^\| ([\w, ]+) \| (\d+) \|", (root / "docs" / "paper.md").read_text(), re.MULTILINE)
    found = {}
    for names, count in rows:
        rules = names.split(", ")
        found |= {rule: int(count) // len(rules) for rule in rules}
    return found | {"total": sum(int(count) for _, count in rows)}


def test_the_paper_plans_the_documented_jobs_in_seconds_without_network(workflow, root, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = workflow.run("config/paper.yaml", "--dry-run")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of the processor, so that a busy machine does not fail it
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    assert counts_of(text) == documented(root)


@pytest.fixture
def paper(root, monkeypatch):
    monkeypatch.chdir(root)
    return load_config("config/paper.yaml")


def test_every_hub_model_is_pinned_to_a_commit(paper):
    for model in Grid(paper).models.values():
        assert re.fullmatch("[0-9a-f]{40}", model.revision), model.name


def test_the_14b_model_keeps_four_fifths_and_the_others_three(paper):
    grid = Grid(paper)
    assert grid.method_entry("sstoken", "Qwen2.5-14B")["keep_ratio"] == 0.8
    assert grid.method_entry("sstoken", "Llama-3.2-3B")["keep_ratio"] == 0.6
    assert "keep_ratio" not in grid.method_entry("full", "Qwen2.5-14B")


def test_the_published_track_evaluates_as_the_releases_did(paper):
    assert Grid(paper).evaluation == paper["evaluation"]
    published = Grid(paper | {"track": "as_published"}).evaluation
    assert (published["add_bos"], published["limit_fraction"]) == (False, 0.99)
    small = paper["evaluation"] | {"limit": 5, "add_bos": True}
    kept = Grid(paper | {"track": "as_published", "evaluation": small}).evaluation
    assert (kept["add_bos"], kept["limit_fraction"], kept["limit"]) == (True, None, 5)
