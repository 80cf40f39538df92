"""The tables of README and docs/results.md come from what runs left, and only from that."""

import pandas as pd

from sstoken.report.fill import MARKED, fill

TEXT = """before
<!-- table: averages world -->
old
<!-- end -->
between
<!-- table: main other -->
kept
<!-- end -->
after
"""


def test_tables_are_those_of_the_run_and_what_has_not_run_stays(tmp_path):
    folder = tmp_path / "results" / "world" / "report" / "tables"
    folder.mkdir(parents=True)
    rows = [
        ("a", "full", "Average", 50.04, 48.0, 52.0), ("a", "mine", "Average", 51.0, float("nan"), 52.0),
        ("b", "full", "Average", 40.0, 39.0, 41.0), ("b", "mine", "Average", float("nan"), 1.0, 2.0),
        ("a", "full", "MMLU", 1.0, 0.0, 2.0),
    ]  # fmt: skip
    columns = ["model", "method", "benchmark", "estimate", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "averages.csv", index=False)
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert fill(path, tmp_path / "results") == (["averages world"], ["main other"])
    text = path.read_text()
    assert (
        "| method | a | b |" in text
        and "| full | 50.0 ± 2.0 | 40.0 ± 1.0 |" in text
        and "| mine | 51.0 ± – |  |" in text
    )
    assert "old" not in text and "kept" in text and text.startswith("before") and text.endswith("after\n")
    assert fill(path, tmp_path / "results")[0] == ["averages world"] and path.read_text() == text


def test_differences_are_those_from_full_with_their_marks(tmp_path):
    folder = tmp_path / "world" / "report" / "tables"
    folder.mkdir(parents=True)
    rows = [
        ("a", "rho1", "full", "Average", 7.0, 5.2, 8.7, True),
        ("a", "rho1", "base", "Average", 1.0, 0.0, 2.0, False),
    ]
    columns = ["model", "method", "against", "benchmark", "estimate", "low", "high", "significant"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "differences.csv", index=False)
    path = tmp_path / "x.md"
    path.write_text("<!-- table: differences world -->\n<!-- end -->\n")
    fill(path, tmp_path)
    assert "| rho1 | +7.0 [+5.2, +8.7]* |" in path.read_text()


def test_readme_and_results_have_tables_to_fill(root):
    for name in ("README.md", "docs/results.md", "docs/safety.md"):
        text = (root / name).read_text()
        assert [found["what"] for found in MARKED.finditer(text)] and text.count("<!-- table:") == text.count(
            "<!-- end -->"
        )


def test_a_figure_is_copied_from_the_run_it_is_named_after(tmp_path):
    figures = tmp_path / "results" / "world" / "report" / "figures"
    figures.mkdir(parents=True)
    (figures / "forest.svg").write_text("<svg/>")
    path = tmp_path / "README.md"
    path.write_text(
        "![Forest](docs/figures/world/forest.svg) ![Other](docs/figures/other/forest.svg) [text](docs/x.md)"
    )
    assert fill(path, tmp_path / "results") == (["figure forest world"], ["figure forest other"])
    assert (tmp_path / "docs" / "figures" / "world" / "forest.svg").read_text() == "<svg/>"
    assert not (tmp_path / "docs" / "figures" / "other").exists()
