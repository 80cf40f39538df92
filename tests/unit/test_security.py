"""No pickle, no remote code, no shell from names, nothing of a row that a page or a terminal would obey, no token in a file."""

import ast
import re
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sstoken.experiment.config import check_config
from sstoken.experiment.grid import Grid
from sstoken.models.table import load_models
from sstoken.records.documents import ConfigError, schema, validate
from sstoken.report.audit_page import PageTable, shaded, terminal, write_audit_page
from sstoken.report.page.html import inline_svg, markdown_blocks
from sstoken.report.show import _as_page
from tests.flow import SECRET
from tests.unit.test_config import MINIMAL

ROOT = Path(__file__).parents[2]
HOSTILE = [
    ";",
    "$",
    "$(id)",
    "`id`",
    "'",
    '"',
    "\n",
    "\r",
    "\0",
    " ",
    "|",
    "&",
    "<",
    ">",
    "*",
    "?",
    "~",
    "\\",
    "{",
    "\u2028",
    "/",
]
NAMES = st.builds(
    lambda before, sign, after: f"{before}{sign}{after}",
    st.text(string.ascii_lowercase, max_size=3), st.sampled_from(HOSTILE), st.text(string.ascii_lowercase, max_size=3),
)  # fmt: skip
EVIL = '<script>alert("1")</script><img src=x onerror=alert(1)>'


def python_files():
    return [*(ROOT / "sstoken").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled_nothing_remote_runs_and_no_shell_is_built(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & {
                n.split(".")[0] for n in names
            }
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in (
                "torch.load",
                "np.load",
                "eval",
                "exec",
                "os.system",
                "os.popen",
                "yaml.unsafe_load",
            ), called
            for keyword in node.keywords:
                if keyword.arg in ("shell", "trust_remote_code", "allow_pickle"):
                    assert ast.unparse(keyword.value) == "False", f"{called}({keyword.arg})"


def test_rules_run_scripts_and_no_shell():
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        assert not re.search(r"^\s*(shell|run)\s*[:(]", path.read_text(), re.MULTILINE), path


@settings(max_examples=20)
@given(NAMES)
@example("x\n")
@example("../x")
@example("-rf")
def test_a_name_that_a_shell_or_a_path_would_read_is_refused(name):
    with pytest.raises(ConfigError):
        check_config(MINIMAL | {"experiment": name}, ["x.yaml"])
    with pytest.raises(ConfigError):
        load_models(own=[{"name": name, "family": "Llama", "size": "1B", "source": "local:x"}])
    with pytest.raises(ConfigError):
        validate({"methods": {name: {"extends": "full"}}}, schema("methods"), "own_methods")
    row = dict.fromkeys(("task", "metric", "version", "chance", "column", "data"), "x") | {"name": name, "shots": "0"}
    with pytest.raises(ConfigError):
        validate(row, schema("benchmarks"), "benchmarks.tsv:2")
    with pytest.raises(ConfigError):
        ablation = {
            "name": name,
            "models": ["tiny-llama"],
            "methods": ["rho1"],
            "option": "keep_ratio",
            "values": [0.5, 1],
        }
        check_config(MINIMAL | {"ablations": [ablation]}, ["x.yaml"])


@pytest.mark.parametrize("value", ["../x", "a b", "$(id)", "deep\n"])
def test_a_value_of_an_ablation_that_a_path_would_read_is_refused(value):
    ablation = {
        "name": "a",
        "models": ["tiny-llama"],
        "methods": ["sstoken"],
        "option": "attention_layer",
        "values": [value, "deep"],
    }
    with pytest.raises(ValueError, match=r"."):
        Grid(check_config(MINIMAL | {"ablations": [ablation]}, ["x.yaml"]))


def test_rows_are_text_on_every_page_and_in_the_terminal(tmp_path):
    keep = np.array([True, False])
    sample = shaded(EVIL, EVIL, [EVIL, "\x1b[31mred"], ["", EVIL], {"rho1": (np.array([0.1, 0.9]), keep)})
    table = PageTable(EVIL, EVIL, [EVIL], [[EVIL]])
    write_audit_page(
        tmp_path / "a.html", title=EVIL, about=EVIL, tables=[table], samples=[sample], refused={EVIL: EVIL}
    )
    token = {"text": EVIL, "kept": True, "score": 0.5, "noise": EVIL}
    shown = {"id": EVIL, "trained": True, "prompt": EVIL, "response_tokens": 1, "kept_tokens": 1, "tokens": [token]}
    cells = [str(cell) for block in markdown_blocks(f"| {EVIL} |\n|---|\n| {EVIL} |\n\n{EVIL}")
             for cell in ([*block.headers, *block.rows[0]] if hasattr(block, "rows") else [block])]  # fmt: skip
    svg = str(inline_svg('<svg viewBox="0 0 1 1"></svg>', "a", EVIL))
    for text in ((tmp_path / "a.html").read_text(), _as_page([shown]), "".join(cells), svg):
        assert "alert(" in text and "<script>alert" not in text and "<img" not in text
    assert "\x1b" not in terminal(sample, colour=False)


def test_a_figure_holds_a_rows_text_as_text(tmp_path):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots()
    axis.set_title("<script>alert(1)</script>")
    figure.savefig(tmp_path / "a.svg")
    plt.close(figure)
    assert "<script" not in (tmp_path / "a.svg").read_text()


def test_the_hubs_token_is_in_nothing_that_a_run_leaves(ci):
    """``ci`` ran with a token in its environment: logs, records, tables, page, Snakemake's own files."""
    assert ci.environment()["HF_TOKEN"] == SECRET and SECRET not in ci.output
    files = [path for path in ci.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
