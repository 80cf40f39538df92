"""Start the workflow on a checked configuration: what is wrong is said in one line, before Snakemake reads it.

``python -m sstoken.experiment.start CONFIG [key=value …] [-- options of snakemake]``
"""

from __future__ import annotations

import shlex
import sys

from sstoken.experiment.check import check
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.records.documents import ConfigError
from sstoken.selection.methods import MethodError


def main(arguments: list[str]) -> None:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    path, *words = arguments[:end]
    try:
        check(Grid(read_config([path], words)))
    except (ConfigError, MethodError) as error:
        sys.exit(str(error))
    from snakemake.cli import main as snakemake

    snakemake(
        ["--configfile", path, *(["--config", f"set={shlex.join(words)}"] if words else []), *arguments[end + 1 :]]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
