"""Configuration: closed schemas, defaults filled in, errors that name the key and the file.

The schemas in ``workflow/schemas`` are the one home of keys, types, defaults and their descriptions; ``config/README.md``
is made from them.
"""

from __future__ import annotations

import copy
import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "workflow" / "schemas"


class ConfigError(ValueError):
    """A configuration that does not make sense: says which file, which key, what is wrong and what would do."""


@dataclass(frozen=True)
class ModelEntry:
    """One row of ``models.tsv``.

    source: where the weights come from (see ``sstoken.sources``). revision: of a hub model.
    keep_ratio: replaces every selecting method's ρ for this model (the papers: 0.8 for Qwen2.5-14B); None = the method's.
    """

    name: str
    family: str
    size: str
    source: str
    revision: str | None = None
    keep_ratio: float | None = None


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA (see workflow/schemas/config.schema.yaml for every key)."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Parallel:
    """gpus: processes of one run. strategy: "ddp" (the model on each) or "fsdp" (a shard of it on each)."""

    gpus: int = 1
    strategy: str = "ddp"


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe (see workflow/schemas/config.schema.yaml for every key)."""

    adapter: AdapterSettings | None
    learning_rate: float
    schedule: str
    warmup_share: float
    weight_decay: float
    epochs: float
    max_steps: int
    micro_batch_size: int
    accumulation: int
    shuffle: bool
    dtype: str
    max_grad_norm: float
    gradient_checkpointing: bool
    checkpoint_every: int
    chunk_size: int
    dropped_loss_every: int

    @classmethod
    def of(cls, section: dict) -> TrainingSettings:
        adapter = section["adapter"]
        if adapter is not None:
            adapter = AdapterSettings(**{**adapter, "targets": tuple(adapter["targets"])})
        return cls(**{**section, "adapter": adapter})


def schema(name: str) -> dict:
    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def load_config(path: str | Path, **settings) -> dict:
    """Read one configuration file, put ``settings`` over it, check it and fill in defaults."""
    return check_config({**read_yaml(path), **settings}, [path])


def settings_of(items: list[str]) -> dict:
    """``key=value`` words of a command line, values as YAML."""
    return {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in items)}


def read_yaml(path: str | Path) -> dict:
    try:
        return yaml.safe_load(Path(path).read_text()) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def check_config(config: dict, files) -> dict:
    """The configuration with every default filled in; ``{instruct_data}`` and ``{world}`` stay for the grid to resolve.

    Raises:
        ConfigError: lists every violation, a line each.
    """
    rules = schema("config")
    validate(config, rules, " + ".join(map(str, files)) or "configuration")
    return _filled(copy.deepcopy(dict(config)), rules, rules)


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


def _filled(value, rules: dict, root: dict):
    if "$ref" in rules:
        return _filled(value, root["$defs"][rules["$ref"].rsplit("/", 1)[1]], root)
    if isinstance(value, dict):
        for name, sub in rules.get("properties", {}).items():
            if name not in value and "default" in sub:
                value[name] = copy.deepcopy(sub["default"])
            if name in value:
                value[name] = _filled(value[name], sub, root)
    return value


def read_table(path: str | Path, schema_name: str) -> list[dict[str, str]]:
    """Rows of a TSV file, checked against a closed schema; ``#`` lines are comments.

    Raises:
        ConfigError: names the file, the line, and the column.
    """
    try:
        text = Path(path).read_text()
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


def load_models(path: str | Path) -> dict[str, ModelEntry]:
    entries = {}
    for row in read_table(path, "models"):
        revision, ratio = row.get("revision") or None, row.get("keep_ratio") or None
        fields = {k: row[k] for k in ("name", "family", "size", "source")}
        entries[row["name"]] = ModelEntry(**fields, revision=revision, keep_ratio=float(ratio) if ratio else None)
    return entries


def pick(what: str, names: list[str], known: dict, where) -> dict:
    """``{name: known[name]}`` in the order asked for; an unknown name is an error that lists the known ones."""
    for name in names:
        if name not in known:
            guess = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise ConfigError(f"{where}: unknown {what} {name!r}.{hint} Known: {', '.join(known)}")
    return {name: known[name] for name in names}
