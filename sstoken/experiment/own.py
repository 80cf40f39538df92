"""Methods of one's own: what a configuration adds to the shipped entries."""

from __future__ import annotations

from sstoken.records.documents import ConfigError, read_yaml, schema, validate
from sstoken.selection.methods import METHODS_FILE


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
