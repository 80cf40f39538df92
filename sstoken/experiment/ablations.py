"""Ablations: one option of one or several methods varied, or one setting of data or training; everything else as it was.

A point whose settings are those of a run that the grid has already is that run: nothing is trained twice.  Where a setting
is varied, full-data training, and whatever a method is scored with, are trained under each of its values too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sstoken.experiment.conditions import Condition, condition_of, is_setting
from sstoken.records.documents import ConfigError
from sstoken.selection.methods import UNTRAINED, Method, build_method, full

COMPARED = "full"
"""The method that every other is compared with, at the same value."""


@dataclass(frozen=True)
class Point:
    """One value of an ablation for one method.

    run: the name under which its results are filed. against: that of full-data training at the same value, "" where the
    grid has none. condition: name of the condition that both are trained under, "" for the configuration's own.
    """

    method: str
    value: str | float
    run: str
    against: str = ""
    condition: str = ""


@dataclass(frozen=True)
class Ablation:
    """name: of the figure. option: what is varied. models: on which. points: in order."""

    name: str
    option: str
    models: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(point.run for point in self.points))


@dataclass
class Expanded:
    """What the configuration's ``ablations`` add. entries: run -> its entry. under: run -> (its method, its condition)."""

    ablations: list[Ablation] = field(default_factory=list)
    entries: dict[str, dict] = field(default_factory=dict)
    under: dict[str, tuple[str, Condition]] = field(default_factory=dict)
    conditions: dict[str, Condition] = field(default_factory=dict)


class Expansion:
    """Of one checked configuration.

    Args:
        entries: every method's plain entry.
    """

    def __init__(self, config: dict, entries: dict[str, dict]):
        self.config, self.entries, self.where = config, entries, config["methods_file"]
        own = config["own_methods"]
        self.built = {n: build_method(n, e, "own_methods" if n in own else self.where) for n, e in entries.items()}
        self.found = Expanded()
        # runs that the grid has anyway are taken first where their settings are a point's
        first = [*config["methods"], *(name for name in entries if name not in config["methods"])]
        self.settings: dict[Method, str] = {}
        for name in first:
            self.settings.setdefault(_settings(self.built[name]), name)

    def expand(self, models: list[str]) -> Expanded:
        """
        Raises:
            ConfigError: an unknown model, an unknown method, or a value that is not allowed.
        """
        for section in self.config["ablations"]:
            for what, asked, allowed in (
                ("model", section["models"], models), ("method", section["methods"], self.entries),
            ):  # fmt: skip
                for name in asked:
                    if name not in allowed:
                        raise ConfigError(
                            f"ablation {section['name']}: unknown {what} {name!r}. Known: {', '.join(allowed)}"
                        )
            points = self._settings_points(section) if is_setting(section["option"]) else self._method_points(section)
            ablation = Ablation(section["name"], section["option"], tuple(section["models"]), tuple(points))
            self.found.ablations.append(ablation)
        return self.found

    def _method_points(self, section: dict) -> list[Point]:
        points, against = [], COMPARED if COMPARED in self.config["methods"] else ""
        for name in section["methods"]:
            for label, value in _values(section):
                run = f"{name}.{section['name']}={label}"
                entry = _with(self.entries[name], section["option"], value)
                run = self.settings.setdefault(_settings(build_method(run, entry, self.where)), run)
                if run not in self.entries:
                    self.found.entries[run] = entry | {"source": f"ablation {section['name']} of {name}"}
                points.append(Point(name, label, run, against))
        return points

    def _settings_points(self, section: dict) -> list[Point]:
        conditions = []
        for label, value in _values(section):
            condition = condition_of(self.config, section["name"], section["option"], label, value)
            known = (c for c in self.found.conditions.values() if c.config == condition.config)
            condition = next(known, condition)
            if condition.name:
                self.found.conditions[condition.name] = condition
            conditions.append((label, condition))
        return [
            Point(name, label, self.run(name, condition), self.run(COMPARED, condition), condition.name)
            for name in dict.fromkeys([COMPARED, *section["methods"]])
            for label, condition in conditions
        ]

    def run(self, name: str, condition: Condition, trail: tuple[str, ...] = ()) -> str:
        """The run of a method under a condition, with the runs that it is scored with; itself where nothing is otherwise."""
        method = self.built[name]
        if not method.trains:
            return name
        if name in trail:
            raise ConfigError(f"{self.where}: methods need each other: {' -> '.join([*trail, name])}")
        needed = {w for w in method.weights.values() if w not in UNTRAINED and w in self.entries}
        others = {weights: self.run(weights, condition, (*trail, name)) for weights in needed}
        data = condition.dataset(method.data)
        if not condition.trains and data == method.data and all(new == old for old, new in others.items()):
            return name
        run = f"{name}.{condition.name}"
        if run not in self.found.entries:
            entry = self.entries[name] | {"data": data, "source": f"{name} under {condition.name}"}
            for key in ("reference", "history"):
                if getattr(method, key) in others:
                    entry[key] = others[getattr(method, key)]
            if method.references:
                entry["references"] = {key: others.get(w, w) for key, w in method.references.items()}
            self.found.entries[run] = entry
            self.found.under[run] = (name, condition)
        return run


def _values(section: dict) -> list[tuple]:
    """(what stands for it in names, the value) of each; a mapping's keys stand for its values."""
    values = section["values"]
    return list(values.items()) if isinstance(values, dict) else [(value, value) for value in values]


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
