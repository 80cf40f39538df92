"""Settings of a command line, laid over a configuration file.

``training.learning_rate=0.02`` or ``training={learning_rate: 0.02}`` changes that one key.  ``training:={learning_rate:
0.02}`` replaces the whole block: its other keys fall to their defaults.
"""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from sstoken.records.documents import ConfigError, parse_yaml, yaml_problem

QUOTING = (
    'Write nested keys with points, SET="training.learning_rate=0.02", and put what holds blanks into single quotes, '
    "SET=\"instruct_data='my rows.jsonl'\""
)


class Whole(dict):
    """A block that replaces the one of its name."""


def merged(under: dict, over: dict) -> dict:
    """``over`` laid on ``under``, block by block: what ``over`` does not name stays. Neither is changed."""
    found = dict(under)
    for key, value in over.items():
        if isinstance(value, Whole):
            found[key] = dict(value)
        elif isinstance(value, dict):
            below = found.get(key)
            found[key] = merged(below if isinstance(below, dict) else {}, value)
        else:
            found[key] = value
    return found


def settings_of(items: list[str]) -> dict:
    """What ``key=value`` words of a command line ask for, as nested mappings; values are YAML.

    ``set=…`` holds several words in one: Snakemake's ``--config`` allows no points in a key.

    Raises:
        ConfigError: a word that is no ``key=value``, or a value that is no YAML; says how to quote.
    """
    found: dict = {}
    for item in _joined(items):
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"{item!r} is not key=value. {QUOTING}")
        if key == "set":
            found = _over(found, settings_of(split(text)))
            continue
        whole = key.endswith(":")
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{item!r}: the value is not valid YAML ({yaml_problem(error)}). {QUOTING}") from error
        if whole and isinstance(value, dict):
            value = Whole(value)
        names = key.rstrip(":").split(".")
        if not all(names):
            raise ConfigError(f"{item!r}: a key is a name, or names joined by points. {QUOTING}")
        for name in reversed(names):
            value = {name: value}
        found = _over(found, value)
    return found


def _over(under: dict, over: dict) -> dict:
    """``merged``, but a block that replaces stays one, also where a later word changes a key of it."""
    found = type(under)(under)
    for key, value in over.items():
        below = found.get(key)
        if isinstance(value, dict) and not isinstance(value, Whole) and isinstance(below, dict):
            found[key] = _over(below, value)
        else:
            found[key] = value
    return found


def split(text: str) -> list[str]:
    """The words of ``SET``, by the rules of the shell."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"SET={text!r}: a quote is not closed. {QUOTING}") from error


def _joined(items: list[str]) -> list[str]:
    """Words that a shell has cut inside brackets, in one again."""
    found: list[str] = []
    for item in items:
        if found and _open(found[-1]) > 0:
            found[-1] += f" {item}"
        else:
            found.append(item)
    return found


def _open(text: str) -> int:
    return sum(text.count(sign) for sign in "[{") - sum(text.count(sign) for sign in "]}")


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every leaf."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
