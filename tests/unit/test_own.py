"""Methods and models of one's own: inline, or in a file beside; they add to the shipped ones."""

import pytest
import torch

from sstoken import load_method
from sstoken.experiment.config import check_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.own import words_of_scorers
from sstoken.experiment.settings import merged, settings_of
from sstoken.models.table import load_models
from sstoken.records.documents import ConfigError
from sstoken.selection import Signals
from sstoken.selection.methods import MethodError, build_method
from tests.unit.test_config import MINIMAL

SCORER = """
from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    \"\"\"``score_i = k·L_θ(x_i)``: keep what the model finds hardest.\"\"\"

    k: float = 1.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"})

    def score(self, signals: Signals) -> torch.Tensor:
        return self.k * signals.loss
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas").mkdir()
    (tmp_path / "ideas" / "mine.py").write_text(SCORER)
    return tmp_path


def grid(**settings):
    return Grid(check_config(MINIMAL | settings, ["x.yaml"]))


def test_methods_inside_the_configuration_add_and_extend(here):
    own = {
        "mine": {"scorer": "ideas/mine.py", "keep_ratio": 0.6},
        "mine-twice": {"extends": "mine", "parameters": {"k": 2.0}},
        "sstoken-low": {"extends": "sstoken", "keep_ratio": 0.2},
    }
    found = grid(methods=["full", *own], own_methods=own)
    assert list(found.methods) == ["full", *own]
    losses = torch.tensor([[1.0, 2.0]])
    signals = Signals(torch.ones(1, 2, dtype=torch.bool), loss=losses)
    assert found.methods["mine-twice"].scorer.score(signals).equal(2 * losses)
    # the job builds the method again from what it is handed, and it is the same one
    again = build_method("mine", found.method_entry("mine", "tiny-llama"))
    assert again == found.methods["mine"] and again.needs == {"loss"}
    assert found.methods["sstoken-low"].scorer == load_method("sstoken").scorer


def test_a_file_beside_adds_to_the_shipped_methods_on_every_track(here):
    (here / "own.yaml").write_text("methods:\n  mine:\n    extends: sstoken\n    keep_ratio: 0.3\n")
    found = grid(methods=["mine", "random"], methods_file="own.yaml")
    assert (found.methods["mine"].keep_ratio, found.methods["random"].keep_ratio) == (0.3, 0.6)
    published = grid(methods=["mine"], methods_file="own.yaml", track="as_published").methods["mine"]
    assert published.scorer.attention_only_samples == 10_000
    assert load_method("mine", "own.yaml").keep_ratio == 0.3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"method mine: scorer ideas/mine.py: no such file \(a path counts from the working directory"),
        ("x = (\n", r"ideas/mine.py:1: SyntaxError"),
        ("\nimport nothing_of_that_name\n", r"ideas/mine.py:2: ModuleNotFoundError"),
        ("x = 1\n", r"no class Config\(Scorer\)"),
        (SCORER, "unknown parameter q; known: k"),
    ],
)
def test_a_scorer_that_cannot_be_used_says_where(here, text, message):
    path = here / "ideas" / "mine.py"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(MethodError, match=message):
        grid(methods=["mine"], own_methods={"mine": {"scorer": "ideas/mine.py", "parameters": {"q": 1}}})


def test_an_edited_scorer_is_read_again(here):
    entry = {"scorer": "ideas/mine.py"}
    before = build_method("mine", entry)
    assert build_method("mine", entry) == before
    (here / "ideas" / "mine.py").write_text(SCORER.replace("k: float = 1.0", "k: float = 3.0"))
    assert build_method("mine", entry).scorer.k == 3.0


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"sstoken": {"keep_ratio": 0.1}}, "give yours another, e.g. sstoken-mine: {extends: sstoken}"),
        ({"mine": {"scorer": "random", "keep": 1}}, "own_methods: unknown key 'methods.mine.keep'"),
        ({"Mine": {"scorer": "random"}}, "own_methods: .*small letters"),
        ({"mine": {"extends": "twin"}, "twin": {"extends": "mine"}}, "methods extend each other: mine -> twin -> mine"),
        ({"mine": {"extends": "sstokn"}}, "Did you mean 'sstoken'"),
    ],
)
def test_a_wrong_own_method_says_what(here, own, message):
    with pytest.raises((ConfigError, MethodError), match=message):
        grid(methods=["full"], own_methods=own)


def test_models_inside_the_configuration_add(here):
    own = [{"name": "mine", "family": "Llama", "size": "1B", "source": "local:models/mine", "keep_ratio": 0.8}]
    found = grid(models=["mine", "tiny-llama"], own_models=own, methods=["sstoken"])
    assert found.models["mine"].source == "local:models/mine"
    assert found.method_entry("sstoken", "mine")["keep_ratio"] == 0.8
    with pytest.raises(ConfigError, match=r"own_models\[0\]: unknown key 'sourc'. Did you mean 'source'"):
        grid(own_models=[{"name": "a", "family": "Llama", "size": "1B", "sourc": "x"}])
    (here / "models.tsv").write_text("name\tfamily\tsize\tsource\nmore\tLlama\t1B\tlocal:x\n")
    assert {"more", "tiny-llama"} <= set(load_models("models.tsv"))


def test_a_scorers_file_alone_is_a_method(here):
    """``sstoken audit --method ideas/mine.py``."""
    (here / "ideas" / "An_idea.py").write_text(SCORER)
    files = [here / "ideas" / "mine.py", here / "ideas" / "An_idea.py"]
    words = words_of_scorers(["full", "random"], files)
    found = Grid(check_config(merged(MINIMAL, settings_of(words)), ["x.yaml"]))
    assert list(found.methods) == ["full", "random", "mine", "an-idea"]
    assert found.methods["mine"].keep_ratio == 0.6 and found.methods["mine"].needs == {"loss"}
    assert words_of_scorers(["full"], []) == []


@pytest.mark.parametrize(
    ("names", "message"), [(["nowhere.py"], "no such file"), (["a.py", "x/a.py"], "another file gives the method a")]
)
def test_a_scorers_file_that_cannot_be_one_is_named(here, names, message):
    (here / "x").mkdir()
    for name in ("a.py", "x/a.py"):
        (here / name).write_text(SCORER)
    with pytest.raises(ConfigError, match=message):
        words_of_scorers(["full"], [here / name for name in names])


def test_a_scorer_without_its_class_is_said_of_ones_own_methods(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(MethodError, match=r"^own_methods, method mine: scorer .*empty.py: no class Config"):
        grid(methods=["mine"], own_methods={"mine": {"scorer": str(tmp_path / "empty.py")}})
