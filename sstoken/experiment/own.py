"""Methods of one's own: what a configuration adds to the shipped entries."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path

from sstoken.records.documents import PACKAGE, ConfigError, read_yaml, schema, validate
from sstoken.selection.methods import METHODS_FILE, Method


def asked_methods(config: dict) -> dict:
    """``{methods: …}`` of the configuration's ``methods_file`` and its ``own_methods``.

    A file may replace a shipped entry, as a changed copy of it does; an entry inside the configuration may not.

    Raises:
        ConfigError: an entry that is not as the schema says, or ``own_methods`` with the name of a shipped method.
    """
    path, own = config["methods_file"], config["own_methods"]
    document = read_yaml(path)
    validate(document, schema("methods"), path)
    validate({"methods": own}, schema("methods"), "own_methods")
    taken = document["methods"] | read_yaml(METHODS_FILE)["methods"]
    for name in own:
        if name in taken:
            raise ConfigError(
                f"own_methods: {name!r} is the name of a method that is there already; give yours another, "
                f"e.g. {name}-mine: {{extends: {name}}}"
            )
    return {"methods": document["methods"] | own}


def own_scorers(methods: Iterable[Method]) -> list[Method]:
    """Those whose scorer lies in a file outside the package."""
    return [m for m in methods if m.scorer and not Path(inspect.getfile(type(m.scorer))).is_relative_to(PACKAGE)]


KEEP_RATIO = 0.6
"""ρ of a scorer that comes without an entry: the recipe's."""


def entries_of_scorers(files: Iterable[Path]) -> dict[str, dict]:
    """Method -> its entry, of a scorer a file: ``ideas/mine.py`` gives the method ``mine``.

    Raises:
        ConfigError: no such file, two files of one name, or the name of a shipped method.
    """
    entries: dict[str, dict] = {}
    shipped = read_yaml(METHODS_FILE)["methods"]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; give the Python file of a scorer (docs/how-to/own-method.md)")
        name = file.stem.lower().replace("_", "-")
        if name in entries:
            raise ConfigError(f"{file}: another file gives the method {name} too; rename one")
        if name in shipped:
            raise ConfigError(f"{file}: there is a method {name} already; rename the file")
        entries[name] = {"scorer": str(file), "keep_ratio": KEEP_RATIO}
    return entries


def words_of_scorers(methods: list[str], files: Iterable[Path]) -> list[str]:
    """``key=value`` words that add scorers' files, each under its own name, to these methods of a configuration."""
    entries = entries_of_scorers(files)
    asked = list(dict.fromkeys([*methods, *entries]))
    return [f"own_methods={json.dumps(entries)}", f"methods={json.dumps(asked)}"] if entries else []
