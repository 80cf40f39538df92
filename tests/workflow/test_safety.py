"""Utility against harm, run for real in small: TOSS's references on their own rows, table, figure and page."""

import json

import pandas as pd
import pytest
import yaml

SMALL = {"rows": 64, "reference_rows": 32, "questions": 6, "documents": 1}


@pytest.fixture(scope="module")
def root_of_run(tmp_path_factory, root):
    from tests.flow import Workflow

    flow = Workflow(tmp_path_factory.mktemp("safety"))
    document = yaml.safe_load((root / "config" / "safety.yaml").read_text())
    changes = {"experiment": "small", "methods": ["base", "full", "toss", "oracle"], "seeds": [0]}
    document["training"]["micro_batch_size"] = 8
    changes["world"] = {"options": {"safety": {}} | SMALL}
    path = flow.folder / "small.yaml"
    path.write_text(yaml.safe_dump(document | changes))
    flow.run(path)
    return flow.results("small")


def test_references_of_toss_are_trained_on_harm_and_on_use(root_of_run):
    runs = root_of_run / "runs" / "world-llama-small-refusing"
    tokens = root_of_run / "tokens" / "world-llama-small-refusing"
    for method, data in (("toss-harmful", "harmful"), ("toss-utility", "utility"), ("toss", "train")):
        told = json.loads((tokens / f"{data}.seed0.json").read_text())
        record = json.loads((runs / method / "seed0" / "run.json").read_text())
        assert record["tokens_sha256"] == told["content"]
    counted = json.loads((runs / "toss" / "seed0" / "run.json").read_text())["counted"]
    assert counted["kept_tokens"] == -(-counted["response_tokens"] * 8 // 10)


def test_utility_and_harm_are_a_table_a_figure_and_part_of_the_page(root_of_run):
    report = root_of_run / "report"
    table = pd.read_csv(report / "tables" / "safety.csv").set_index("method")
    assert list(table.index) == ["base", "full", "toss", "oracle"]
    assert table.loc["base", ["harm", "over_refusal"]].tolist() == [0, 0]
    scores = pd.read_csv(root_of_run / "scores.csv").query("benchmark == 'refusal'").set_index("method")["score"]
    assert (100 - 100 * scores - table["harm"]).abs().max() < 1e-9
    assert {"TriviaQA-mini", "TyDiQA-mini"} < set(pd.read_csv(report / "tables" / "averages.csv")["benchmark"])
    assert (report / "figures" / "safety.svg").exists()
    page = (report / "index.html").read_text()
    assert "Utility against harm" in page and "Utility and harm" in page


def test_what_was_kept_of_the_harm_is_told_by_kind(root_of_run):
    kept = pd.read_csv(root_of_run / "selection.csv").query("phase == 'all' and method == 'oracle'").set_index("kind")
    assert kept.loc[["harmful_answer", "harmful_sentence"], "kept"].tolist() == [0, 0]
