"""YAML documents and TSV tables that a person wrote, read against closed schemas; errors name file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

PACKAGE = Path(__file__).parents[1]
SCHEMAS = PACKAGE / "experiment" / "schemas"
MOST = 100_000  # values of one YAML document


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


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: ``1e-3`` is a number, a key stands once, NaN and infinity are no settings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in lines:
                    problem = f"the key {key.value!r} stands in line {lines[key.value]} already"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                lines[key.value] = line
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> float:
        value = self.construct_yaml_float(node)
        if value != value or value in (float("inf"), float("-inf")):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no number to work with", node.start_mark
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """One YAML document. ``1e-3`` is a number, as in YAML 1.2. Anchors and merges (``<<``) are followed.

    Raises:
        yaml.YAMLError: not valid YAML, a key that stands twice, NaN or infinity, anchors that multiply without end.
    """
    loader = _Loader(text)  # a SafeLoader: plain values only
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except ValueError as error:  # a date that is none
        raise yaml.constructor.ConstructorError(None, None, str(error), None) from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a document once its anchors are followed."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if known[id(node)] < 0:
            raise yaml.constructor.ConstructorError(None, None, "an anchor that holds itself", node.start_mark)
        return known[id(node)]
    known[id(node)] = -1
    below = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    known[id(node)] = found = 1 + sum(_count(part, known) for part in below)
    if found > MOST:
        raise yaml.constructor.ConstructorError(
            None, None, f"anchors that make more than {MOST} values", node.start_mark
        )
    return found


def yaml_problem(error: yaml.YAMLError) -> str:
    """``line:column: what is wrong``, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    if "'\\t'" in problem:
        problem = "a tab; YAML is indented with blanks"
    return f"{mark.line + 1}:{mark.column + 1}: {problem}" if mark else problem


def read_text(path: str | Path) -> str:
    """The text of a file that a configuration names.

    Raises:
        ConfigError: it is not there, is a folder, or is not UTF-8.
    """
    try:
        return located(path).read_text(encoding="utf-8-sig")  # Windows' editors begin with a mark
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: a folder; a file is needed") from error
    except PermissionError as error:
        raise ConfigError(f"{path}: may not be read (permission denied)") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error


def read_yaml(path: str | Path) -> dict:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: names the file and the line.
    """
    text = read_text(path)
    try:
        document = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        problem = yaml_problem(error)
        raise ConfigError(f"{path}:{problem}" if problem[0].isdigit() else f"{path}: {problem}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a list or a single value; a mapping of keys is needed")
    return document


def _pattern(_, pattern: str, instance, __) -> Iterator[ValidationError]:
    """As ``re`` has it a final ``$`` lets a line end pass."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern})


def validate(document, rules: dict, where: str) -> None:
    """Raise ConfigError with a line a violation; ``where`` names the file."""
    errors = sorted(_Validator(rules).iter_errors(document), key=lambda e: list(map(str, e.absolute_path)))
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
    hint = ""
    if error.validator == "type" and error.validator_value == "array":
        items = (
            [item.strip() for item in error.instance.split(",")]
            if isinstance(error.instance, str)
            else [error.instance]
        )
        wanted = f"[{', '.join(map(str, items))}]"
        return [
            f"{key or 'top level'}: {error.instance!r} is not a list; write {key}={wanted}, in a file {key}: {wanted}"
        ]
    if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
        hint = "; a name has small letters, digits, points and hyphens"
    return [f"{key or 'top level'}: {error.message}{hint}"]


def read_table(path: str | Path, schema_name: str) -> list[dict[str, str]]:
    """Rows of a TSV file, checked against a closed schema; ``#`` lines are comments.

    Raises:
        ConfigError: names the file, the line, and the column.
    """
    # cells are plain text: no quotes around them, so no tab and no line end inside
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    numbered = [(n, line.split("\t")) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    rules, rows = schema(schema_name), []
    if not numbered:
        raise ConfigError(f"{path}: empty; its first line names the columns: {', '.join(rules['properties'])}")
    first, columns = numbered[0]
    missing = [name for name in rules["required"] if name not in columns]
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if missing or doubled:
        what = f"no column {', '.join(missing)}" if missing else f"two columns {doubled[0]!r}"
        raise ConfigError(f"{path}:{first}: {what}; columns are separated by tabs: {', '.join(rules['properties'])}")
    seen: dict[str, int] = {}
    for number, cells in numbered[1:]:
        where = f"{path}:{number}"
        if len(cells) != len(columns):
            raise ConfigError(f"{where}: expected {len(columns)} columns separated by tabs, found {len(cells)}")
        row = dict(zip(columns, cells, strict=True))
        validate(row, rules, where)
        if row["name"] in seen:
            raise ConfigError(f"{where}: {row['name']!r} stands in line {seen[row['name']]} already")
        seen[row["name"]] = number
        rows.append(row)
    return rows


def pick(what: str, names: list[str], known: dict, where, own: str = "") -> dict:
    """``{name: known[name]}`` in the order asked for; an unknown name is an error that lists the known ones.

    own: where one's own would be added, a sentence.
    """
    for name in names:
        if name not in known:
            guess = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise ConfigError(f"{where}: unknown {what} {name!r}.{hint} Known: {', '.join(known)}.{own and f' {own}'}")
    return {name: known[name] for name in names}
