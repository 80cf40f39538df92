"""The reference of configuration keys, made from the schema: ``python -m sstoken.experiment.reference config/README.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sstoken.records.documents import schema

START, END = "<!-- keys: made from the schema -->", "<!-- end of keys -->"


def keys_reference() -> str:
    """Every key of a configuration as Markdown: a table of the top level, and one of every block."""
    rules = schema("config")
    return "\n\n".join(_tables("", rules, rules))


def _tables(place: str, rules: dict, root: dict) -> list[str]:
    lines = ["| key | value | default | what |", "|---|---|---|---|"]
    below = []
    seen = set()
    for key, asked in rules.get("properties", {}).items():
        sub = _resolved(asked, root)
        block = _block(sub, root)
        name = f"{place}*" if "$ref" in asked else f"{place}{key}"
        default = f"`{json.dumps(sub['default'])}`" if "default" in sub and not block else ""
        what = f"{sub.get('description', '')}" + (f" See [{name}](#{_anchor(name)})." if block else "")
        lines.append(f"| `{key}` | {_value(sub)} | {default} | {_text(what)} |")
        if block and name not in seen:
            seen.add(name)
            below += _tables(f"{name}.", block, root)
    title = [f"### {place.rstrip('.')}"] if place else []
    return ["\n\n".join([*title, "\n".join(lines)]), *below]


def _text(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "&#124;")


def _anchor(name: str) -> str:
    return name.replace(".", "").replace("*", "").lower()


def _resolved(rules: dict, root: dict) -> dict:
    return root["$defs"][rules["$ref"].rsplit("/", 1)[1]] if "$ref" in rules else rules


def _block(rules: dict, root: dict) -> dict | None:
    """The object whose keys are described below: the value itself, an item of the list, or any value of the mapping."""
    for candidate in (rules, rules.get("items"), rules.get("additionalProperties")):
        if isinstance(candidate, dict):
            found = _resolved(candidate, root)
            if found.get("properties"):
                return found
    return None


def _value(rules: dict) -> str:
    if "enum" in rules:
        return ", ".join(f"`{json.dumps(value)}`" if value is None else f"`{value}`" for value in rules["enum"])
    kinds = rules.get("type", "object")
    names = {"object": "mapping", "array": "list", "string": "text", "boolean": "true, false"}
    text = " or ".join(str(names.get(kind, kind)) for kind in (kinds if isinstance(kinds, list) else [kinds]))
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {rules[name]}" for name, sign in bounds.items() if name in rules]
    return text + (f" {', '.join(limits)}" if limits else "")


def main(arguments: list[str]) -> None:
    if not arguments:
        print(keys_reference())
    for name in arguments:
        path = Path(name)
        before, _, rest = path.read_text().partition(START)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{START}\n{keys_reference()}\n{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
