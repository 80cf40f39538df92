"""Where every file of an experiment lies. Names only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sstoken.models.table import ModelEntry
from sstoken.world.facts import WORLD_SEED

HELD_OUT = "heldout"
"""A data set whose rows nothing trains on, and the benchmark that asks for their responses."""


@dataclass(frozen=True)
class Run:
    """One training run, or one part of a chain: ``part`` is None for the run's end."""

    model: str
    method: str
    seed: int
    part: int | None = None


class Layout:
    """Files below ``root``, the experiment's folder."""

    root: Path
    config: dict
    models: dict[str, ModelEntry]

    @property
    def world(self) -> Path:
        return self.root / "data" / "world"

    def world_folder(self, draw: int | None, condition: str = "") -> Path:
        """Of the world's rows of one seed; None: of its benchmarks, and of rows that all seeds share.

        condition: whose rows they are (``sstoken.experiment.conditions``).
        """
        world = self.world / condition
        return world if draw is None else world / f"seed{draw}"

    @property
    def bases(self) -> Path | None:
        """Where this run pre-trains the world's bases, if it does not take the shipped ones."""
        share = (self.config["world"] or {}).get("pretrain_share")
        return self.root / "bases" if share else None

    @property
    def facts(self) -> int:
        """Seed of the embedded world's names and facts; ``WORLD_SEED``, 0, is that of the shipped bases."""
        return (self.config["world"] or {"options": {}})["options"].get("facts", WORLD_SEED)

    def base_record(self, model: str) -> Path | None:
        kind, _, name = self.models[model].source.partition(":")
        return self.bases / name / "base.json" if self.bases and kind == "world" else None

    @property
    def heldout_rows(self) -> Path | None:
        """The rows of the benchmark of held-out loss, where the configuration says what is held out (``{split}`` is open)."""
        asked = HELD_OUT in (self.config.get("data") or {}) and HELD_OUT in self.config["benchmarks"]
        return self.root / "data" / HELD_OUT / "{split}.jsonl" if asked else None

    @property
    def heldout_record(self) -> Path | None:
        return self.heldout_rows.with_name("heldout.json") if self.heldout_rows else None

    def model_record(self, model: str) -> Path:
        return self.root / "models" / model / "model.json"

    def tokens(self, model: str, dataset: str, draw: int | None = None) -> Path:
        """draw: the seed whose rows they are, None where all seeds share them."""
        return self.root / "tokens" / model / f"{_drawn(dataset, draw)}.safetensors"

    def losses(self, model: str, dataset: str, label: str, draw: int | None = None) -> Path:
        return self.root / "references" / model / _drawn(dataset, draw) / f"{label}.safetensors"

    def run_record(self, run: Run) -> Path:
        folder = self.root / "runs" / run.model / run.method / f"seed{run.seed}"
        return (folder if run.part is None else folder / f"part{run.part}") / "run.json"

    def evaluation_record(self, run: Run) -> Path:
        return self.root / "scores" / run.model / run.method / f"seed{run.seed}" / "evaluation.json"


def _drawn(dataset: str, draw: int | None) -> str:
    return dataset if draw is None else f"{dataset}.seed{draw}"
