"""The page as a reader meets it: opened from disk in headless Chromium."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from sstoken.report.figures import draw_figures
from sstoken.report.page import render_page
from sstoken.report.results import Results
from tests.browser import browse
from tests.report_case import facts, write_logs, write_tables


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A made-up run with everything, one run missing."""
    root = tmp_path_factory.mktemp("run")
    write_tables(root, facts())
    write_logs(root, facts())
    (root / "report" / "tables" / "missing.csv").write_text(
        "model,method,seed,why\nsmall-llama,rho1,1,the job failed: <out of memory>\n"
    )
    results = Results(root, facts())
    draw_figures(results, root / "report" / "figures")
    render_page(results, root / "report" / "index.html", config={"experiment": "made-up"})
    return root / "report" / "index.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_from_disk_without_errors_or_requests(page, tmp_path, width, dark):
    probe = """
        const images = [...document.images], drawings = [...document.querySelectorAll('figure svg')];
        const ids = [...document.querySelectorAll('[id]')].map((e) => e.id), uses = [...document.querySelectorAll('use')];
        const paper = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
        return {overflow: Math.max(0, document.documentElement.scrollWidth - innerWidth), drawings: drawings.length,
            broken: images.filter((i) => !i.complete || !i.naturalWidth).length
                + drawings.filter((d) => !d.getBBox().width || !d.getAttribute('aria-label')).length,
            repeated: ids.length - new Set(ids).size,
            dangling: uses.filter((u) => !document.getElementById(u.href.baseVal.slice(1))).length,
            fetched: performance.getEntriesByType('resource').length, bright: paper[0] > 128}"""
    seen = browse(page, tmp_path, probe, width=width, dark=dark)
    assert seen["console"] == [] and seen["requests"] == []
    assert seen["dark"] is dark
    value = seen["value"]
    assert value == {
        "overflow": 0, "drawings": 14, "broken": 0, "repeated": 0, "dangling": 0, "fetched": 0, "bright": not dark
    }  # fmt: skip


def test_tables_sort_by_a_click_and_by_the_keyboard(page, tmp_path):
    probe = """
        const table = document.querySelector('table.sortable'), heads = [...table.tHead.rows[0].cells];
        const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent.trim());
        const before = column(0), button = heads[1].querySelector('button');
        button.click();
        const first = [heads[1].ariaSort, column(1)];
        button.focus();
        const focused = document.activeElement === button;
        button.click();
        const second = [heads[1].ariaSort, column(1)];
        heads[3].querySelector('button').click();
        return {before, first, second, focused, gaps: column(3)}"""
    value = browse(page, tmp_path, probe)["value"]
    numbers = [float(text.split()[0]) for text in value["first"][1]]
    assert value["first"][0] == "descending" and numbers == sorted(numbers, reverse=True) and len(numbers) == 6
    assert value["second"][0] == "ascending" and value["second"][1] == value["first"][1][::-1]
    assert value["focused"]
    assert [bool(gap) for gap in value["gaps"]] == [True] * 4 + [False] * 2, "empty cells come last"
    assert value["before"][0].startswith("base")


def test_the_first_screen_answers(page, tmp_path):
    probe = """
        const seen = (e) => e.getBoundingClientRect().bottom <= 800;
        const text = [...document.querySelectorAll('.answers dt, .answers dd')].filter(seen).map((e) => e.textContent);
        const scope = seen(document.getElementById('scope'));
        const begin = [...document.querySelectorAll('.overview')].filter((e) => e.getBoundingClientRect().top <= 800);
        return [text, begin.length, scope]"""
    text, tables, scope = browse(page, tmp_path, probe)["value"]
    assert scope, "what the page speaks of stands before what it says"
    questions = ["Who wins?", "Is it real?", "What did it cost?", "What was kept?"]
    assert [t for t in text if t.endswith("?")] == questions * 2
    assert tables == 2


def test_four_models_fit_in_one_screen(tmp_path):
    case = facts(models=["small-llama", "large-llama", "small-qwen2", "large-qwen2"])
    write_tables(tmp_path, case)
    render_page(Results(tmp_path, case), tmp_path / "index.html")
    probe = """
        const rows = [...document.querySelectorAll('.glance tbody tr')];
        return [rows.length, Math.max(...rows.map((row) => row.getBoundingClientRect().bottom)),
            rows.slice(0, 4).map((row) => row.cells[0].textContent),
            rows.slice(0, 4).filter((row) => document.getElementById(row.querySelector('a').hash.slice(1))).length]"""
    count, bottom, names, linked = browse(tmp_path / "index.html", tmp_path / "browser", probe)["value"]
    assert count == 4 + len(case.methods) and bottom < 800
    assert names == case.models and linked == 4


def test_it_reads_without_javascript(page):
    text = page.read_text()
    still = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for needed in ("sstoken has the highest average", '<th scope="row">rho1', "How to read this", "abc123"):
        assert needed in still
    assert "<button" not in still, "what only a script can do is not shown without it"


def test_it_names_missing_runs_and_escapes_what_it_quotes(page):
    text = page.read_text()
    assert "Partial: 1 run is missing." in text
    assert "the job failed: &lt;out of memory&gt;" in text


def test_it_says_where_the_numbers_come_from(page):
    text = page.read_text()
    for needed in ("abc123", "a processor", "Seeds: 0, 1.", "&#34;experiment&#34;: &#34;made-up&#34;"):
        assert needed in text


def test_the_workflow_makes_it_and_snakemakes_own_report_has_its_items(ci):
    root = ci.results("ci")
    ci.run("config/ci.yaml", "--", "results/ci/report/index.html")
    drawn = [
        entry["name"] for entry in json.loads((root / "report/figures/figures.json").read_text()) if "why" not in entry
    ]
    assert {"tradeoff", "forest", "trajectory-tiny-llama", "shaded-tiny-llama"} <= set(drawn)
    text = (root / "report" / "index.html").read_text()
    for method in ("rho1", "sstoken", "tokencleaning-self-evolving"):
        assert text.count(f'<tr><th scope="row">{method}</th><td class="tokens">') >= 6, (
            "samples of a chain's parts too"
        )
    ci.run("config/ci.yaml", "--report", "report.zip", "--", "results/ci/report/index.html")
    with zipfile.ZipFile(ci.folder / "report.zip") as archive:
        packed = {Path(name).name for name in archive.namelist()}
    assert {f"{name}.svg" for name in drawn} | {"index.html"} <= packed


def test_it_shows_which_tokens_were_kept_and_the_banner_first(page, tmp_path):
    from tests.unit.test_figures import write_samples

    write_tables(tmp_path, facts())
    write_logs(tmp_path, facts())
    write_samples(tmp_path, "small-llama", facts())
    case = facts(made_up=True, miniatures=True, sources=["{world}/train.jsonl"])
    render_page(Results(tmp_path, case), tmp_path / "index.html")
    probe = """
        const grids = [...document.querySelectorAll('.shares')];
        const cells = (table, row) => [...table.tBodies[0].rows[row].cells].map((cell) => cell.textContent.trim());
        const scope = document.getElementById('scope'), main = document.querySelector('main');
        return {captions: grids.map((t) => t.caption.textContent), tenth: cells(grids[0], 0), overlap: cells(grids[2], 0),
            first: Boolean(scope.compareDocumentPosition(main) & Node.DOCUMENT_POSITION_FOLLOWING), scope: scope.textContent}"""
    value = browse(tmp_path / "index.html", tmp_path / "browser", probe)["value"]
    assert value["tenth"] == ["1", "100 %", "0 %"], "rho1 keeps what comes first, sstoken drops it"
    assert value["overlap"] == ["rho1", "100 %", "0 %"] and len(value["captions"]) == 3
    assert value["first"] and "Made-up" in value["scope"] and "Miniatures" not in value["scope"]


def test_a_run_with_nothing_yet_still_has_a_page(tmp_path):
    results = Results(tmp_path, facts())
    draw_figures(results, tmp_path / "report" / "figures")
    render_page(results, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert text.count("Nothing to compare yet") == 2
    assert "Left out" in text


def test_the_same_run_gives_the_same_page(page, tmp_path):
    render_page(Results(page.parents[1], facts()), tmp_path / "again.html", config={"experiment": "made-up"})
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
