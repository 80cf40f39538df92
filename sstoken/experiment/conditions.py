"""Conditions: one value of a setting of data or training, under which methods are trained as under the configuration's own."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field

from sstoken.experiment.config import check_config
from sstoken.records.documents import ConfigError
from sstoken.world.generate import generate
from sstoken.world.noise import rates_of

WORLD = "world.options."
VARIED = ("training.", "data.", WORLD)
"""Options of an ablation that begin so are settings of the run; any other is a key of the method's entry."""
SHARED = ("questions", "documents", "facts")
"""What of the world all conditions share: its benchmarks, and what the base models know."""
OPTIONS = {name: p.default for name, p in inspect.signature(generate).parameters.items() if name not in ("out", "seed")}


@dataclass(frozen=True)
class Condition:
    """name: of its files, ``<ablation>=<value>``; "" for the configuration's own. config: the whole of it.

    changed: data sets that have other rows. world: whether the world that they come from is another.
    trains: whether training has other settings.
    """

    name: str = ""
    config: dict = field(default_factory=dict, compare=False)
    changed: tuple[str, ...] = ()
    world: bool = False
    trains: bool = False

    def dataset(self, name: str) -> str:
        """The name of a data set's rows under this condition; ``train+reference`` is both, in order."""
        return "+".join(f"{part}.{self.name}" if part in self.changed else part for part in name.split("+"))


def is_setting(option: str) -> bool:
    return option.startswith(VARIED)


def condition_of(config: dict, ablation: str, option: str, label, value) -> Condition:
    """The checked configuration with one setting replaced; ``Condition()`` where that is what it is anyway.

    Args:
        label: what stands for the value in names.

    Raises:
        ConfigError: a setting that is not there, that all conditions share, or whose value is not allowed.
    """
    where = f"ablation {ablation}, {option}={label}"
    if option.startswith(WORLD):
        _check_world(config, option.removeprefix(WORLD), where)
    elif option.startswith("data.") and option.split(".")[2:3] == ["sources"]:
        raise ConfigError(f"{where}: sources cannot be varied; name another data set in an entry of own_methods")
    changed = copy.deepcopy(config)
    *blocks, last = option.split(".")
    block = changed
    for name in blocks:
        if not isinstance(block.get(name), dict):
            block[name] = {}
        block = block[name]
    block[last] = copy.deepcopy(value)
    changed = check_config(changed, [where])
    world = _rows(changed, where) != _rows(config, where)
    sets, own = changed["data"], config["data"]
    other = [name for name, section in sets.items() if section != own.get(name) or (world and reads_world(section))]
    trains = changed["training"] != config["training"]
    if not other and not trains:
        return Condition()
    return Condition(f"{ablation}={label}", changed, tuple(other), world, trains)


def reads_world(section: dict) -> bool:
    return any("{world}" in source for source in section["sources"])


def _check_world(config: dict, name: str, where: str) -> None:
    if config["world"] is None or not any(map(reads_world, (config.get("data") or {}).values())):
        raise ConfigError(f"{where}: no data set of this configuration comes from the embedded world")
    if name in SHARED:
        raise ConfigError(f"{where}: benchmarks and corpus are the same for all values; vary what makes the rows")
    known = [option for option in OPTIONS if option not in SHARED]
    if name not in known:
        raise ConfigError(f"{where}: the world has no option {name!r}. Known: {', '.join(known)}")


def _rows(config: dict, where: str) -> dict | None:
    """What the world's rows are made with, defaults filled in: two ways of asking for the same rows are one."""
    if config["world"] is None:
        return None
    options = OPTIONS | config["world"]["options"]
    try:
        rates = rates_of(options.pop("noise"), options.pop("noise_factor"))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return {name: value for name, value in options.items() if name not in SHARED} | {"rates": rates}
