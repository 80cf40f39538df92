"""Ablations: one option of one or several methods varied, everything else as it was.

A point whose settings are those of a run that the grid has already is that run: nothing is trained twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sstoken.records.documents import ConfigError
from sstoken.selection.methods import Method, build_method, full


@dataclass(frozen=True)
class Point:
    """One value of an ablation for one method. run: the name under which its results are filed."""

    method: str
    value: str | float
    run: str


@dataclass(frozen=True)
class Ablation:
    """name: of the figure. option: the method's key that is varied. models: on which. points: in order."""

    name: str
    option: str
    models: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(point.run for point in self.points))


def expand(
    sections: list[dict], entries: dict[str, dict], models: list[str], known: list[str], where: str | Path
) -> tuple[list[Ablation], dict[str, dict]]:
    """(ablations, new entries): what the configuration's ``ablations`` add to the methods.

    Args:
        sections: ``{name, models, methods, option, values}`` each; ``option`` is a key of ``methods.yaml``, or
            ``parameters.<name>`` of the scorer.
        entries: every method's plain entry. known: methods that the grid runs anyway, which are taken first where
            their settings are a point's. where: the methods file, for errors.

    Raises:
        ConfigError: an unknown model, an unknown method, or a value that the method does not allow.
    """
    built = {name: build_method(name, entries[name], where) for name in entries}
    first = [*known, *(name for name in entries if name not in known)]
    settings = {}
    for name in first:
        settings.setdefault(_settings(built[name]), name)
    ablations, added = [], {}
    for section in sections:
        for what, asked, allowed in (("model", section["models"], models), ("method", section["methods"], entries)):
            for name in asked:
                if name not in allowed:
                    raise ConfigError(
                        f"ablation {section['name']}: unknown {what} {name!r}. Known: {', '.join(allowed)}"
                    )
        points = []
        for name in section["methods"]:
            for value in section["values"]:
                run = f"{name}.{section['name']}={value}"
                entry = _with(entries[name], section["option"], value)
                run = settings.setdefault(_settings(build_method(run, entry, where)), run)
                if run not in entries:
                    added[run] = entry | {"source": f"ablation {section['name']} of {name}"}
                points.append(Point(name, value, run))
        ablations.append(Ablation(section["name"], section["option"], tuple(section["models"]), tuple(points)))
    return ablations, added


def _with(entry: dict, option: str, value) -> dict:
    if option.startswith("parameters."):
        return entry | {"parameters": entry.get("parameters", {}) | {option.removeprefix("parameters."): value}}
    return entry | {option: value}


def _settings(method: Method) -> Method:
    """What two methods must have in common to be one run; what a method that keeps everything ranks by is no matter."""
    if method.keeps_all:
        alike = ("data", "normalisation", "learning_rate_factor", "steps_factor")
        method = Method(name="", scorer=full.Config(), **{key: getattr(method, key) for key in alike})
    return replace(method, name="", source="", claim="", kind=None)
