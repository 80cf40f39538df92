"""The catalogue of methods: claims by how far they were read, what our runs say, on a terminal, as a page, in a report."""

import json
import re
import shutil

import pandas as pd
import pytest

from sstoken.experiment import catalogue, evidence
from sstoken.experiment.catalogue_text import WIDTH, text
from sstoken.experiment.config import check_config, load_config
from sstoken.experiment.evidence import CLAIMS, MEASURED, Claim, Measured, read_claims, read_measured
from sstoken.experiment.grid import Grid
from sstoken.experiment.tickets import settings_of_method
from sstoken.records import identity
from sstoken.records.documents import ConfigError
from sstoken.report.facts import facts_of
from sstoken.report.fill import fill
from sstoken.report.measured import measure
from sstoken.report.page import render_page
from sstoken.report.results import Results
from sstoken.selection.methods import build_method, load_methods
from tests.report_case import facts, write_tables
from tests.unit.test_cli import sstoken
from tests.unit.test_config import MINIMAL

METHODS = load_methods()
ITEMS = {item.name: item for item in catalogue.catalogue(METHODS)}


def test_every_method_of_a_paper_has_a_claim_and_no_other_has():
    papers = {
        name
        for name, method in METHODS.items()
        if method.kind not in ("control", "bound") and not method.source.startswith("an ablation")
    }
    assert set(read_claims()) == papers and not [m.name for m in METHODS.values() if m.claim]
    assert all(claim.text and claim.mark in evidence.MARKS for name in papers for claim in ITEMS[name].claims)
    assert "MMLU 54.26" in ITEMS["maxloss"].claims[0].text and ITEMS["dft"].claims[1].mark == "second-hand"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dft: {rumoured: it is good}", "unknown key 'dft.rumoured'"),
        ("dft: {}", "claims.yaml: dft"),
        ("dft: it is good", "is not of type 'object'"),
    ],
)
def test_a_claim_says_how_far_it_was_read(tmp_path, lines, message):
    path = tmp_path / "claims.yaml"
    path.write_text(lines)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_claims(path)


def test_claims_and_measurements_are_in_the_identity_of_no_result(root, monkeypatch):
    names = {key for stage in identity.STAGES for key in identity.code_of(stage)} | set(identity.report_code())
    assert not [key for key in names if key.endswith((".yaml", "measured.csv"))]
    entry = {"scorer": "dft", "normalisation": "response"}
    assert settings_of_method(build_method("a", entry | {"claim": "x"})) == settings_of_method(build_method("a", entry))
    grid = Grid(load_config(root / "config" / "beyond.yaml"))
    before = facts_of(grid)
    for name in ("read_claims", "read_measured"):
        monkeypatch.setattr(catalogue, name, lambda: pytest.fail("a report is told of claims"))
    assert facts_of(grid) == before


def test_the_shipped_measurements_are_those_that_the_documentation_prints(root):
    rows = read_measured()
    assert {row.method for row in rows} <= set(METHODS)
    tables = (root / "docs" / "results.md").read_text()
    for experiment in ("beyond", "world"):
        table = tables.partition(f"<!-- table: differences {experiment} -->")[2].partition("<!-- end -->")[0]
        shown = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
        own = [row for row in rows if row.experiment == experiment]
        assert own and not [row for row in own if f"| {row.text} |" not in shown[row.method]]
    toss = next(line for line in (root / "docs" / "safety.md").read_text().splitlines() if " toss  " in line)
    assert [row.score for row in rows if row.text in toss and row.method == "toss"] == ["utility", "harm"]


def test_every_method_that_was_run_says_what_came_out():
    run = set(load_config("config/beyond.yaml")["methods"]) - {"full"}
    assert not [name for name in run if not ITEMS[name].measured]
    assert ITEMS["toss"].measured and ITEMS["tokencleaning-self-evolving"].measured


ROW = Measured("dft", "small", "average", 4.54, None, None, False, None, "beyond", 3)


def test_a_measurement_is_written_with_sign_ends_and_star():
    assert ROW.text == "+4.5"
    ends = {"low": -0.01, "high": 9.0}
    assert Measured(**vars(ROW) | ends | {"significant": True, "minus_full": -4.5}).text == "−4.5 [0.0, +9.0]*"


def finished(results, experiment, rows, table="differences"):
    folder = results / experiment / "report" / "tables"
    folder.mkdir(parents=True)
    (results / experiment / "config.json").write_text(json.dumps({"seeds": [0, 1]}))
    pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
    flops = [("small", "full", 10.0, 0.0), ("small", "rho1", 10.0, 5.2), ("small", "base", 0.0, 0.0)]
    columns = ["model", "method", "training_flops", "reference_flops"]
    pd.DataFrame(flops, columns=columns).to_csv(folder / "costs.csv", index=False)


def difference(method, estimate, significant, *, against="full", benchmark="Average", model="small"):
    return {"model": model, "method": method, "against": against, "benchmark": benchmark, "estimate": estimate,
            "low": -1.0, "high": 1.04, "significant": significant}  # fmt: skip


def test_results_writes_what_runs_say_and_leaves_what_has_not_run(tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text(
        "# why\nmethod,model,score,minus_full,low,high,significant,operations,experiment,seeds\n"
        "toss,small,harm,-9.0,,,True,,safety,3\nrho1,small,average,8.0,,,False,,beyond,3\n"
        "rho1,old,average,8.0,,,False,,world,3\n"
    )
    rows = [
        difference("rho1", -0.04, True), difference("base", 2.0, False), difference("rho1", 7.0, True, benchmark="MMLU"),
        difference("rho1", 6.0, True, against="base"), difference("mine", 1.0, True), difference("stm", float("nan"), False),
    ]  # fmt: skip
    finished(tmp_path / "results", "beyond", rows)
    assert measure(path, tmp_path / "results") == (["measured beyond"], ["measured safety", "measured world"])
    assert path.read_text().splitlines()[0] == "# why"
    assert read_measured(path) == [
        Measured("base", "small", "average", 2.0, -1.0, 1.0, False, None, "beyond", 2),
        Measured("rho1", "small", "average", 0.0, -1.0, 1.0, True, 1.52, "beyond", 2),
        Measured("toss", "small", "harm", -9.0, None, None, True, None, "safety", 3),
    ]
    before = path.read_text()
    measure(path, tmp_path / "results")
    assert path.read_text() == before


def test_utility_and_harm_are_read_for_what_no_earlier_experiment_has(tmp_path):
    ends = {"_minus_full": -9.94, "_minus_full_low": -14.0, "_minus_full_high": None, "_significant": True}
    scores = {f"{name}{end}": value for name in ("utility", "harm") for end, value in ends.items()}
    finished(tmp_path / "r", "beyond", [difference("rho1", 1.0, False)])
    rows = [{"model": "refusing", "method": name} | scores for name in ("rho1", "toss")]
    finished(tmp_path / "r", "safety", rows, table="safety")
    path = tmp_path / "measured.csv"
    assert measure(path, tmp_path / "r") == (["measured beyond", "measured safety"], ["measured world"])
    found = [(row.method, row.score, row.minus_full, row.high, row.significant) for row in read_measured(path)]
    assert found[0][:2] == ("rho1", "average") and found[1:] == [
        ("toss", name, -9.9, None, True) for name in ("utility", "harm")
    ]


def test_the_command_prints_everything_within_the_width(capsys):
    status, shown, _ = sstoken(capsys, "methods")
    assert status == 0 and max(map(len, shown.splitlines())) <= WIDTH == 100
    flat = " ".join(shown.split())
    for part in (
        "claim loses on facts, NQ: 31.24 before, SFT 36.62, DFT 30.14 (second-hand)",
        "cost a reference model and 1 pass of it (shared); here 1.52 times full's operations",
        "here utility minus full: world-llama-small-refusing −9.9 [",
        "(embedded world, experiment safety, 3 seeds)",
        "* significant after Holm's correction",
    ):
        assert part in flat
    _, shown, _ = sstoken(capsys, "methods", "--json")
    dft = next(item for item in json.loads(shown) if item["name"] == "dft")
    assert dft["claims"][1]["mark"] == "second-hand" and {row["model"] for row in dft["measured"]} == {
        "world-llama-small", "world-qwen2-small"
    }  # fmt: skip


def test_names_print_those_methods_alone_in_their_order(capsys, tmp_path):
    _, shown, _ = sstoken(capsys, "methods", "toss", "dft", "--json")
    assert [item["name"] for item in json.loads(shown)] == ["toss", "dft"]
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(MINIMAL | {"own_methods": {"mine": {"extends": "dft", "claim": "it is mine"}}}))
    status, shown, _ = sstoken(capsys, "methods", "mine", str(path))
    assert status == 0 and shown.startswith("mine  (weight)") and "  claim     it is mine\n" in shown
    assert "toss" not in shown and "here  " not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dtf"], "methods.yaml: unknown method 'dtf'. Did you mean 'dft'? Known: base, "),
        (["dft", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["ideas/mine"], "ideas/mine: no such file"),
        (["a.yaml", "b.yaml"], "one configuration at a time, not a.yaml and b.yaml"),
    ],
)
def test_what_is_no_method_is_said_in_one_line(capsys, words, message):
    status, shown, error = sstoken(capsys, "methods", *words)
    assert (status, shown, error.count("\n")) == (1, "", 1) and f"sstoken methods: {message}" in error


def test_what_is_said_of_a_shipped_method_is_not_said_of_another_of_its_name():
    def item(**entry):
        return catalogue.catalogue({"dft": build_method("dft", {"normalisation": "response"} | entry)})[0]

    assert item(scorer="dft").measured and item(scorer="dft").claims
    other = item(scorer="dft", learning_rate_factor=0.5)
    assert not other.measured and other.claims
    assert not item(scorer="talr").claims and item(scorer="talr", claim="x").claims == [Claim("x")]


@pytest.mark.parametrize(
    ("name", "equation"),
    [
        (
            "easiest",
            "score_i = L_θ(x_i) (hardest tokens) or score_i = -L_θ(x_i) (easiest), θ = the current model at each step",
        ),
        ("oracle", "score_i = 1 for a clean token, 0 for a planted one"),
        ("tokencleaning-fixed", "score_i = L_base(x_i) - L_ref(x_i) (TokenCleaning, Eq. 4)"),
        (
            "asft",
            "weight_i = sg(p_i), p_i = exp(-L_θ(x_i)); divided by all response tokens; the loss adds λ·KL(base ‖ θ) at every "
            "response token, λ = 0.1",
        ),
    ],
)
def test_an_equation_is_the_whole_sentence(name, equation):
    assert ITEMS[name].equation == equation


def test_what_a_reference_of_its_own_costs_is_its_run_too():
    assert ITEMS["toss"].cost == (
        "a run of toss-harmful and 1 pass of it (shared); a run of toss-utility and 1 pass of it (shared)"
    )
    assert ITEMS["t3s"].cost == "1 pass of the base (shared); a run of half-steps and 1 pass of it (shared)"


def test_the_page_of_the_documentation_is_made_of_what_is_there(root, tmp_path):
    page = root / "docs" / "reference" / "methods.md"
    shutil.copy(page, tmp_path)
    assert fill(tmp_path / page.name, tmp_path) == (["methods"], [])
    assert (tmp_path / page.name).read_text() == page.read_text(), "`make results` writes it anew"
    assert not [name for name in METHODS if f"\n### {name}\n" not in page.read_text()]
    assert "reference/methods.md" in (root / "mkdocs.yml").read_text()


def test_the_tables_are_where_the_package_looks_for_them(root):
    assert all((root / name).exists() and (evidence.HERE / name).exists() for name in (CLAIMS, MEASURED))


def test_a_report_lists_the_methods_of_its_run(tmp_path):
    grid = Grid(check_config(MINIMAL | {"benchmarks_data": "benchmarks", "methods": ["full", "random"]}, ["x.yaml"]))
    described = facts_of(grid)["catalogue"]
    assert [item["method"] for item in described] == ["full", "random"] and all(item["source"] for item in described)
    write_tables(tmp_path, facts())
    render_page(Results(tmp_path, facts()), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert '<a href="#methods">' in page and "θ = &lt;the current model&gt; at each step" in page
    render_page(Results(tmp_path, facts(catalogue=[])), tmp_path / "page.html")
    assert 'id="methods"' not in (tmp_path / "page.html").read_text()


def test_nothing_is_printed_that_would_be_empty():
    bare = catalogue.catalogue({"x": build_method("x", {"scorer": "full"})})
    lines = text(bare).split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == ["x", "equation", "trained", "needs", "cost", "source"]
