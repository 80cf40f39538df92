"""Settings of Snakemake that hold however the workflow is started: by make, by ``sstoken audit``, by ``snakemake`` itself."""

from __future__ import annotations

from typing import Any


class Settled:
    """An attribute of Snakemake's workflow: of the settings that it is given, some have our values.

    Snakemake sets them after it has read the Snakefile, and offers the Snakefile no other way.
    """

    def __init__(self, **values: Any):
        self.values = values

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, workflow: Any, owner: type | None = None) -> Any:
        return workflow.__dict__.get(self.name)

    def __set__(self, workflow: Any, settings: Any) -> None:
        if settings is not None:
            for name, value in self.values.items():
                if not hasattr(settings, name):
                    raise AttributeError(f"Snakemake's {type(settings).__name__} has no {name!r} any more")
                setattr(settings, name, value)
        workflow.__dict__[self.name] = settings


def settle_for(workflow_type: type, **settled: Settled) -> None:
    """Give the type these attributes."""
    for name, value in settled.items():
        value.__set_name__(workflow_type, name)
        setattr(workflow_type, name, value)
