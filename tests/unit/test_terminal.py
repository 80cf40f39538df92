"""Colours where the terminal has them, plain text elsewhere."""

import io

import pytest

from sstoken.records.terminal import has_colours, styled


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_the_first_line_stands_out_on_a_terminal():
    assert styled("2 jobs failed:\n- a", "red", Screen()) == "\033[31m2 jobs failed:\033[0m\n- a"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_none_gets_none(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not has_colours(Screen()) and styled("a", "bold", Screen()) == "a"


def test_a_file_gets_plain_text():
    assert styled("a\nb", "bold", io.StringIO()) == "a\nb"
