"""YAML documents and TSV tables that a person wrote, read against closed schemas; errors name file, line and key."""

from __future__ import annotations

import csv
import difflib
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

PACKAGE = Path(__file__).parents[1]
SCHEMAS = PACKAGE / "experiment" / "schemas"


class ConfigError(ValueError):
    """A configuration that does not make sense: says which file, which key, what is wrong and what would do."""


def located(path: str | Path) -> Path:
    """Where a file lies that a configuration names: as it stands, or, for ``sstoken/…``, in the installed package.

    A file of that name below the working directory comes first.
    """
    path = Path(path)
    if path.parts[:1] == (PACKAGE.name,) and not path.exists():
        return PACKAGE.parent / path
    return path


def schema(name: str) -> dict:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def read_yaml(path: str | Path) -> dict:
    try:
        return yaml.safe_load(located(path).read_text()) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def validate(document, rules: dict, where: str) -> None:
    """Raise ConfigError with a line a violation; ``where`` names the file."""
    errors = sorted(Draft202012Validator(rules).iter_errors(document), key=lambda e: list(map(str, e.absolute_path)))
    if errors:
        raise ConfigError("\n".join(f"{where}: {line}" for error in errors for line in _explain(error)))


def _explain(error) -> list[str]:
    key = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        lines = []
        for extra in sorted(set(error.instance) - set(known)):
            guess = difflib.get_close_matches(extra, known, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            lines.append(f"unknown key {'.'.join(filter(None, [key, extra]))!r}.{hint} Known here: {', '.join(known)}")
        return lines
    return [f"{key or 'top level'}: {error.message}"]


def read_table(path: str | Path, schema_name: str) -> list[dict[str, str]]:
    """Rows of a TSV file, checked against a closed schema; ``#`` lines are comments.

    Raises:
        ConfigError: names the file, the line, and the column.
    """
    try:
        text = located(path).read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    rules, rows, seen = schema(schema_name), [], {}
    for (number, _), row in zip(
        numbered[1:], csv.DictReader((line for _, line in numbered), delimiter="\t"), strict=True
    ):
        where = f"{path}:{number}"
        if None in row or None in row.values():
            raise ConfigError(f"{where}: expected {len(numbered[0][1].split(chr(9)))} columns separated by tabs")
        validate(row, rules, where)
        if row["name"] in seen:
            raise ConfigError(f"{where}: {row['name']!r} stands in line {seen[row['name']]} already")
        seen[row["name"]] = number
        rows.append(row)
    return rows


def pick(what: str, names: list[str], known: dict, where) -> dict:
    """``{name: known[name]}`` in the order asked for; an unknown name is an error that lists the known ones."""
    for name in names:
        if name not in known:
            guess = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise ConfigError(f"{where}: unknown {what} {name!r}.{hint} Known: {', '.join(known)}")
    return {name: known[name] for name in names}
