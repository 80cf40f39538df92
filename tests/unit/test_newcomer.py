"""What a newcomer reads first agrees with what is there."""

import json
import re
from pathlib import Path

import pytest

from sstoken.data import read_rows
from sstoken.data.forms import FORMS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_the_table_of_configurations_names_each_file():
    listed = re.findall(r"^\| `(\w[\w-]*\.yaml)` \|", (ROOT / "config" / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


def test_no_two_pages_answer_the_same_question():
    titles = [page.read_text().splitlines()[0] for page in PAGES]
    assert len(set(titles)) == len(titles), titles


def test_every_how_to_is_in_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    assert not [page.name for page in (ROOT / "docs" / "how-to").glob("*.md") if f"how-to/{page.name}" not in site]


def test_every_page_that_readme_names_is_there():
    named = re.findall(r"`((?:docs|config)/[\w./-]*)`", (ROOT / "README.md").read_text())
    assert named and not [name for name in named if not (ROOT / name).exists()]


ROWS = {
    "alpaca": {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
    "dolly": {"instruction": "Add.", "context": "1, 2", "response": "3"},
    "sharegpt": {"conversations": [{"from": "human", "value": "1 + 2?"}, {"from": "gpt", "value": "3"}]},
    "messages": {"messages": [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3"}]},
    "prompt-completion": {"prompt": "1 + 2?", "completion": "3"},
}


def test_own_data_lists_every_form_of_text():
    page = (ROOT / "docs" / "how-to" / "own-data.md").read_text()
    columns = {name for row in ROWS.values() for name in row}
    assert set(ROWS) == set(FORMS) - {"tokens"} and not [name for name in columns if f"`{name}`" not in page]


@pytest.mark.parametrize("form", ROWS)
def test_the_forms_that_own_data_lists_are_read(tmp_path, form):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[form]) + "\n")
    rows, bad = read_rows([str(path)], on_bad_row="stop")
    assert not bad and rows[0].messages[-1]["content"] == "3"
