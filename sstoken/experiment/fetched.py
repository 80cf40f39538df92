"""What a configuration takes from the hub, and where its fetched files lie. Names only."""

from __future__ import annotations

from pathlib import Path

from sstoken.experiment.layout import HELD_OUT
from sstoken.models.table import ModelEntry


class HubFiles:
    """Of one checked configuration.

    rows: name of a fetched file -> its source, for every ``hub:`` source of the configuration's data; records: of them.
    models: names of those that come from the hub. lock: which commits the hub's branches stand for in this experiment.
    benchmarks: a record of each, none where ``benchmarks_data`` names local rows.
    """

    def __init__(self, config: dict, models: dict[str, ModelEntry], root: Path):
        self.folder, self.lock = root / "data" / "hub", str(root / "hub.json")
        sources = [source for section in (config["data"] or {}).values() for source in section["sources"]]
        self.rows = {self._name(source): source for source in sources if source.startswith("hub:")}
        self.records = [self.folder / f"{name}.json" for name in self.rows]
        self.models = [name for name, entry in models.items() if entry.source.startswith("hub:")]
        self.benchmarks_folder = root / "data" / "benchmarks"
        own = {HELD_OUT} & set(config["data"] or {})  # made here, of instruction rows
        names = [] if config["benchmarks_data"] else [name for name in config["benchmarks"] if name not in own]
        self.benchmarks = [self.benchmarks_folder / f"{name}.json" for name in names]

    def path_of(self, source: str) -> str:
        """Where the rows of a source are read: of a hub source, the fetched file."""
        return str(self.folder / f"{self._name(source)}.jsonl") if source.startswith("hub:") else source

    @staticmethod
    def _name(source: str) -> str:
        return source.removeprefix("hub:").replace("/", "--").replace(":", "--")
