"""Figures from made-up tables: all there, the same bytes each time, and honest about what is missing."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from sstoken.data import TokenData
from sstoken.report.figures import draw_figures
from sstoken.report.figures.style import WIDTH, Drawn, LeftOut, styled
from sstoken.report.numbers import number, row_difference, signed
from sstoken.report.page import render_page
from sstoken.report.page.scope import scope_of
from sstoken.report.page.verdicts import glance_of, overview, spans, together_of, verdict_of
from sstoken.report.results import Results
from sstoken.report.samples import shaded_samples
from tests.report_case import KINDS, facts, write_logs, write_tables

WORDS = ["<user>", "what", "is", "it", "<assistant>", "a", "boat", "thank", "you", "<eos>"]


WORLD = facts(
    described={"small-llama": {"family": "Llama", "size": "small", "source": "random:llama"}},
    sources=["{world}/train.jsonl"],
    made_up=True,
    miniatures=True,
)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_tables(root, facts())
    write_logs(root, facts())
    write_samples(root, "small-llama", facts())
    save_file({"w": torch.zeros(50, 50_000, dtype=torch.int8)}, root / "models" / "small-llama" / "model.safetensors")
    (root / "scores.csv").write_text("benchmark,n_questions\nmmlu,100\ntydiqa,40\nmmlu,100\n")
    return Results(root, facts())


@pytest.fixture(scope="module")
def drawn(case):
    return {d.name: d for d in draw_figures(case, case.root / "report" / "figures")}


def write_samples(root, model, case):
    """Twelve samples "thank you a boat"; rho1 keeps what is planted ("thank you"), sstoken what is not."""
    sample, mask, truth = [0, 1, 2, 3, 4, 7, 8, 5, 6, 9], [0] * 5 + [1] * 5, [0] * 5 + [1, 1, 0, 0, 0]
    count = 12
    data = TokenData(
        torch.tensor(sample * count, dtype=torch.int32),
        torch.arange(count + 1) * len(sample),
        torch.tensor(mask * count, dtype=torch.bool),
        tuple(f"sample-{n}" for n in range(count)),
        torch.tensor(truth * count, dtype=torch.uint8),
        ("boilerplate",),
    )
    data.save(root / "tokens" / model / "train.safetensors")
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="it"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (root / "models" / model).mkdir(parents=True)
    tokenizer.save(str(root / "models" / model / "tokenizer.json"))
    noise = torch.tensor([True, True, False, False, False] * count)
    for method, keep in (("rho1", noise), ("sstoken", ~noise)):
        step = torch.arange(count, dtype=torch.int32) // 4
        arrays = {"score": keep.float() + torch.arange(len(keep)) / 1000, "keep": keep, "step": step}
        path = root / "runs" / model / method / f"seed{case.seeds[0]}" / "selection.safetensors"
        save_file(arrays, path, metadata={"tokens_sha256": data.sha256})


def test_every_figure_is_there_in_three_formats_with_words(case, drawn):
    folder = case.root / "report" / "figures"
    expected = {
        "tradeoff",
        "forest",
        "trajectory-small-llama",
        "ablation-gamma",
        "ablation-layer",
        "when-noise",
        "when-length",
        "shaded-small-llama",
    }
    expected |= {
        f"{kind}-{model}" for kind in ("forest", "noise", "selected", "trajectory") for model in case.facts.models
    }
    assert set(drawn) == expected
    for name, figure in drawn.items():
        assert isinstance(figure, Drawn), f"{name}: {figure}"
        assert figure.alt.endswith(".") and figure.caption.endswith(".")
        for suffix, magic in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
            assert (folder / f"{name}.{suffix}").read_bytes().startswith(magic)
        assert figure.figure.get_figwidth() == WIDTH
    manifest = json.loads((folder / "figures.json").read_text())
    assert [entry["name"] for entry in manifest] == list(drawn)


def test_the_same_tables_give_the_same_bytes(case, drawn, tmp_path):
    words = draw_figures(case, tmp_path, processes=2)  # one process or several
    assert [item.name for item in words] == list(drawn)
    assert len(list(tmp_path.iterdir())) == 3 * len(drawn) + 1
    for path in sorted((case.root / "report" / "figures").iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_nothing_sticks_out_of_a_figure(drawn):
    for name, item in drawn.items():
        figure = item.figure
        with styled():
            figure.draw_without_rendering()
            box = figure.get_tightbbox()
        assert box.x0 >= -0.01 and box.x1 <= WIDTH + 0.01, (name, box)
        assert box.y0 >= -0.01 and box.y1 <= figure.get_figheight() + 0.01, (name, box)


def test_methods_are_told_apart_without_colour(drawn):
    for axis in drawn["tradeoff"].figure.axes:
        points = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        markers = [h.lines[0].get_marker() for label, h in points.items() if "not trained" not in label]
        assert len(set(markers)) == len(markers) == 5


def test_training_time_counts_the_reference(drawn):
    axis = drawn["tradeoff"].figure.axes[0]
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    assert handles["rho1"].lines[0].get_xdata()[0] == pytest.approx(9.0)
    assert handles["full"].lines[0].get_xdata()[0] == pytest.approx(6.0)


def test_forest_fills_what_is_significant_only(case, drawn):
    axis = drawn["forest"].figure.axes[0]
    differences = case.against("full")
    differences = differences[(differences["benchmark"] == "Average") & (differences["model"] == "small-llama")]
    filled = {
        round(float(line.get_xdata()[0]), 6)
        for line in axis.lines
        if len(line.get_xdata()) == 1 and line.get_markerfacecolor() == line.get_color() == "#0072b2"
    }
    assert filled == {round(x, 6) for x in differences[differences["significant"]]["estimate"]}
    assert len(filled) < len(differences)


def test_methods_are_drawn_minus_full_over_the_noise_that_there_is(drawn):
    (axis,) = drawn["when-noise"].figure.axes
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    assert set(handles) == {"rho1", "sstoken"}
    for handle in handles.values():
        assert list(handle.lines[0].get_ydata()) == [0.75, 0.0, -1.0]
        assert handle.lines[0].get_xdata() == pytest.approx([5, 20, 40], abs=1)
    assert axis.get_xlabel() == "noise, % of the response tokens"
    (axis,) = drawn["when-length"].figure.axes
    assert axis.get_xscale() == "log" and [label.get_text() for label in axis.get_xticklabels()] == ["0.25", "1", "2"]
    assert "0.25: rho1 highest (+0.8)" in drawn["when-length"].alt


def test_without_truth_ablations_or_runs_figures_are_left_out_and_say_why(tmp_path):
    case = facts(ablations=[])
    write_tables(tmp_path, case, truth=False)
    left = {d.name: d.why for d in draw_figures(Results(tmp_path, case), tmp_path / "f") if isinstance(d, LeftOut)}
    assert set(left) == {"noise", "trajectory", "selected", "ablations", "shaded"}
    assert "which tokens are noise" in left["noise"]
    assert not list((tmp_path / "f").glob("noise*"))


def test_nothing_at_all_still_renders(tmp_path):
    drawn = draw_figures(Results(tmp_path, facts()), tmp_path / "f")
    assert all(isinstance(d, LeftOut) for d in drawn)


def test_an_empty_cell_is_not_drawn_and_not_ranked(tmp_path):
    write_tables(tmp_path, facts())
    path = tmp_path / "report" / "tables" / "averages.csv"
    table = pd.read_csv(path)
    hole = (table["method"] == "sstoken") & (table["model"] == "small-llama")
    table.loc[hole, ["estimate", "low", "high"]] = np.nan
    table.to_csv(path, index=False)
    results = Results(tmp_path, facts())
    assert "sstoken" in verdict_of(results, "small-llama").wins.partition("Not complete yet")[2]
    assert next(r for r in overview(results, "small-llama") if r.method == "sstoken").average == ""
    assert verdict_of(results, "small-qwen2").wins.startswith("sstoken has the highest average")


def test_bounds_and_the_base_cannot_win(case):
    averages = case.averages
    top = averages[averages["benchmark"] == "Average"].sort_values("estimate").iloc[-1]
    assert top["method"] == "oracle"
    assert verdict_of(case, top["model"]).wins.startswith("sstoken has the highest average")


def test_a_tie_has_no_winner(tmp_path):
    write_tables(tmp_path, facts())
    path = tmp_path / "report" / "tables" / "averages.csv"
    table = pd.read_csv(path)
    table.loc[table["method"].isin(["full", "rho1", "sstoken"]), "estimate"] = 60.0
    table.to_csv(path, index=False)
    results = Results(tmp_path, facts())
    wins = verdict_of(results, "small-llama").wins
    assert wins.startswith("full, rho1 and sstoken share the highest average, 60.0.")
    assert not any(row.best for row in overview(results, "small-llama"))


def change(root, name, where, **values):
    """Set columns of a table in the rows that ``where`` picks."""
    path = root / "report" / "tables" / f"{name}.csv"
    table = pd.read_csv(path)
    chosen = where(table)
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[chosen, column] = value
    table.to_csv(path, index=False)


def test_a_method_that_leaves_the_base_as_it_was_cannot_win(tmp_path):
    """sstoken has the highest average, yet is not above the base: rho1, which is, stands first."""
    write_tables(tmp_path, facts())
    change(tmp_path, "axes", lambda t: t["method"] == "sstoken", teaches=False, taught=0.0)
    results = Results(tmp_path, facts())
    assert verdict_of(results, "small-llama").wins.startswith("rho1 has the highest average")
    rows = {row.method: row for row in overview(results, "small-llama")}
    assert rows["rho1"].best and not rows["sstoken"].best and not rows["sstoken"].teaches
    change(tmp_path, "axes", lambda t: t["method"] != "base", teaches=False)
    wins = verdict_of(Results(tmp_path, facts()), "small-llama").wins
    assert not any(row.best for row in overview(Results(tmp_path, facts()), "small-llama"))
    assert wins.startswith("No method is significantly above the untrained base. sstoken has the highest average")


def test_without_a_base_nothing_is_said_about_what_was_taught(tmp_path):
    write_tables(tmp_path, facts())
    change(tmp_path, "axes", lambda t: t["model"] != "", teaches=np.nan, taught=np.nan)
    results = Results(tmp_path, facts())
    assert verdict_of(results, "small-llama").wins.startswith("sstoken has the highest average")
    assert all(row.teaches and row.taught == "" for row in overview(results, "small-llama"))


def test_level_is_another_word_than_not_told_apart(tmp_path):
    write_tables(tmp_path, facts())
    change(tmp_path, "pooled", lambda t: t["method"] == "random", significant=False, equivalent=True)
    change(tmp_path, "pooled", lambda t: t["method"] == "rho1", significant=False, equivalent=False)
    change(tmp_path, "differences", lambda t: t["method"] == "random", significant=False, equivalent=True)
    results = Results(tmp_path, facts())
    answers = dict(together_of(results))
    assert "Better than full: sstoken; level with full (shown to be within ± 1 point): random" in answers["Each method"]
    assert "not told apart, and not shown to be level: rho1." in answers["Each method"]
    assert "above full in 3 of 4 pairs of model and seed" in answers["On average over the models"]
    assert {row.method: row.verdict for row in overview(results, "small-llama")}["random"] == "level"
    assert "level with it, shown to be within ± 1 point: 1" in verdict_of(results, "small-llama").real


def test_one_model_has_no_mean_over_models(tmp_path):
    write_tables(tmp_path, facts())
    (tmp_path / "report" / "tables" / "pooled.csv").unlink()
    assert together_of(Results(tmp_path, facts())) == []


def test_the_banner_says_what_the_page_speaks_of_and_what_it_does_not_say(case):
    told = dict(scope_of(Results(case.root, WORLD)))
    assert told["Data"].startswith("Made-up. 12 training rows.")
    assert "small-llama (Llama, 2.5 million parameters, random weights)" in told["Models"]
    assert told["Noise"] == "40 % of the response tokens are planted noise: boilerplate 40 %."
    assert told["Questions"].startswith("140 a run, in 2 benchmarks. Miniatures")
    assert "scores mean nothing" in told["Not said"] and "public benchmarks" in told["Not said"]
    assert told["Seeds"] == "2. Each method is trained once a seed. All seeds share the rows."
    drawn = Results(case.root, replace(WORLD, data_per_seed=True))
    assert "Each seed draws its own rows" in dict(scope_of(drawn))["Seeds"]
    bare = dict(scope_of(Results(case.root / "nothing", facts(sources=["hub:some/rows"]))))
    assert bare["Data"] == "Source: hub:some/rows." and bare["Models"] == "small-llama and small-qwen2."
    assert bare["Noise"].startswith("Not known") and bare["Questions"] == "Not known."
    assert "mean nothing" not in bare["Not said"] and "natural text" not in bare["Not said"]


def test_many_models_are_answered_in_a_line_each(case):
    glance = glance_of(case, "small-llama")
    assert glance.winner == "sstoken" and glance.cost == "1.00×" and glance.kept == "60 %, 75 % of it clean"
    rows = [overview(case, model) for model in case.facts.models]
    assert spans(rows, "time") == ["", "1.00×", "1.00×", "1.50×", "1.00×", "1.00×"]
    rows[0][3] = replace(rows[0][3], time="1.10×")
    assert spans(rows, "time")[3] == "1.10 to 1.50×"


def test_the_summary_is_made_of_the_numbers(case):
    gap = case.difference("small-llama", "sstoken", "full")
    verdict = verdict_of(case, "small-llama")
    text = f"sstoken minus full: {signed(gap['estimate'], 1)} [{number(gap['low'], 1)}, "
    assert text in verdict.real and "significant; smallest effect this run could see: 0.9" in verdict.real
    assert "sstoken took 6.0 s of training a run, 1.00 times full's 6.0 s; it needs no reference model." in verdict.cost
    assert "sstoken trained on 60 % of the response tokens; 75 % of these are clean" in verdict.kept


def test_a_difference_reads_as_a_sentence():
    row = pd.Series(
        {"estimate": 0.42, "low": -0.31, "high": 1.1, "significant": False, "equivalent": False, "mde": 0.9}
    )
    assert row_difference(row) == "+0.4 [−0.3, 1.1], not significant; smallest effect this run could see: 0.9"
    row["equivalent"] = True
    assert row_difference(row).startswith("+0.4 [−0.3, 1.1], level within ± 1; ")
    row["significant"] = True
    assert row_difference(row).startswith("+0.4 [−0.3, 1.1], significant; ")
    assert signed(-0.04, 1) == "0.0"


def test_a_difference_is_found_whichever_way_round_it_was_stored(tmp_path):
    write_tables(tmp_path, facts())
    path = tmp_path / "report" / "tables" / "differences.csv"
    table = pd.read_csv(path)
    before = Results(tmp_path, facts()).difference("small-llama", "rho1", "full")
    turned = table.rename(columns={"method": "against", "against": "method"})
    turned = turned.assign(estimate=-table["estimate"], low=-table["high"], high=-table["low"])
    turned.to_csv(path, index=False)
    after = Results(tmp_path, facts()).difference("small-llama", "rho1", "full")
    assert list(after[["estimate", "low", "high"]]) == pytest.approx(list(before[["estimate", "low", "high"]]))


def test_the_banners_rows_are_those_that_are_trained_on(tmp_path):
    """Rows of a control, train+reference, stand first in the folder; those of a seed carry its number."""
    write_logs(tmp_path, facts())
    write_samples(tmp_path, "small-llama", facts())
    folder = tmp_path / "tokens" / "small-llama"
    data = TokenData.load(folder / "train.safetensors")
    (folder / "train.safetensors").rename(folder / "train.seed0.safetensors")
    data.slice(0, 5).save(folder / "train+reference.seed0.safetensors")
    assert "12 training rows" in dict(scope_of(Results(tmp_path, WORLD)))["Data"]
    assert len(shaded_samples(Results(tmp_path, WORLD), "small-llama")) == 6


def test_samples_show_each_tokens_score_and_fate(case):
    sample, *_ = shaded_samples(case, "small-llama")
    assert sample.prompt == "<user> what is it <assistant>"
    assert [t.strip() for t in sample.tokens] == ["thank", "you", "a", "boat", "<eos>"]
    assert sample.noise == ["boilerplate", "boilerplate", "", "", ""]
    lines = {line.method: line for line in sample.lines}
    assert lines["rho1"].keep.tolist() == [True, True, False, False, False]
    assert lines["sstoken"].keep.tolist() == [False, False, True, True, True]
    assert lines["rho1"].rank.argmax() == 1 and lines["sstoken"].rank.argmax() == 4
    assert {line.rank.min() for line in sample.lines} == {0.0} and {line.rank.max() for line in sample.lines} == {1.0}


def test_selection_of_other_data_is_not_shown(case, tmp_path):
    write_logs(tmp_path, facts())
    write_samples(tmp_path, "small-llama", facts())
    path = tmp_path / "runs" / "small-llama" / "rho1" / "seed0" / "selection.safetensors"
    save_file({"score": torch.zeros(60), "keep": torch.zeros(60, dtype=torch.bool)}, path, {"tokens_sha256": "other"})
    sample, *_ = shaded_samples(Results(tmp_path, facts()), "small-llama")
    assert [line.method for line in sample.lines] == ["sstoken"]


def test_noise_is_shown_for_every_kind(drawn):
    labels = [t.get_text() for t in drawn["noise-small-llama"].figure.axes[1].get_xticklabels()]
    assert labels == ["all", *(kind.replace("_", " ") for kind in KINDS)]


def test_runs_that_the_report_does_not_ask_for_count_in_nothing(tmp_path):
    """Of a seed taken out of the configuration, of a longer chain before, of an older formula: they lie beside the others."""
    counted = {"seed0": 6, "seed0/part0": 6, "seed0/part7": 10, "seed1": 10}
    for place, kept in counted.items():
        folder = tmp_path / "runs" / "small-llama" / "sstoken" / place
        folder.mkdir(parents=True, exist_ok=True)
        record = {"counted": {"kept_tokens": kept, "response_tokens": 10}}
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "log.jsonl").write_text(json.dumps({"loss": kept}) + "\n")
    results = Results(tmp_path, facts())
    assert results.kept_share("small-llama", "sstoken") == 0.8  # nothing says which count
    states = {"seed0": "current", "seed0/part0": "current", "seed0/part7": "stale"}
    rows = [f"runs/small-llama/sstoken/{place}/run.json,{state}" for place, state in states.items()]
    (tmp_path / "status.csv").write_text("\n".join(["record,state", *rows]) + "\n")
    results = Results(tmp_path, facts())
    assert results.kept_share("small-llama", "sstoken") == 0.6
    (log,) = results.logs("small-llama", "sstoken")
    assert log["loss"].tolist() == [6, 6]


def test_selection_of_rows_that_carried_labels_once_is_not_shown(tmp_path):
    write_tables(tmp_path, facts())
    assert not Results(tmp_path, facts()).selection.empty
    assert Results(tmp_path, facts(labelled=False)).selection.empty


def test_a_method_of_ones_own_has_its_difference_and_its_auc_on_the_first_screen(tmp_path):
    write_tables(tmp_path, facts())
    shipped, own = (Results(tmp_path, facts(own=names)) for names in ([], ["rho1"]))
    assert "rho1 minus full:" in verdict_of(own, "small-llama").real
    assert "rho1 minus full:" not in verdict_of(shipped, "small-llama").real
    table = pd.read_csv(tmp_path / "selection.csv").astype({"phase": str})
    mine = table.query("model == 'small-llama' and method == 'rho1' and phase == 'all' and kind == 'all'")
    assert f"(AUC; 0.5 is chance): rho1 {mine['auc'].item():.2f} and sstoken 0." in verdict_of(own, "small-llama").kept
    assert "rho1 minus full:" in dict(together_of(own))["On average over the models"]


def test_the_page_shows_no_table_and_no_column_that_would_be_empty(tmp_path):
    world = {"made_up": True, "miniatures": True}
    write_tables(tmp_path, facts())
    tables = tmp_path / "report" / "tables"
    (tables / "published.md").write_text("| source | published |\n|---|--:|\n| a paper | 1.0 |\n\nIts caption.\n")
    (tables / "claims.md").write_text("| claim | holds |\n|---|--:|\n\nIts caption.\n")
    shown = {}
    for name, case in (("world", facts(**world)), ("paper", facts())):
        render_page(Results(tmp_path, case), tmp_path / f"{name}.html")
        shown[name] = (tmp_path / f"{name}.html").read_text()
    assert 'id="published"' in shown["paper"] and 'id="published"' not in shown["world"]
    assert all('id="claims"' not in page and ">lost</th>" in page for page in shown.values())
    change(tmp_path, "axes", lambda t: t["model"] != "", lost=np.nan)
    render_page(Results(tmp_path, facts()), tmp_path / "unbounded.html")
    assert ">lost</th>" not in (tmp_path / "unbounded.html").read_text()
