"""Start the workflow on a checked configuration: what is wrong is said in one line, before Snakemake reads it.

``python -m sstoken.experiment.start CONFIG [key=value …] [-- options of snakemake]``
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from pathlib import Path

from sstoken.experiment.check import PASSED, check
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.records.documents import PACKAGE, ConfigError
from sstoken.selection.methods import MethodError

SNAKEFILE = PACKAGE.parent / "Snakefile"


def start(path: str, words: list[str], options: list[str]) -> None:
    """Check the configuration, then run Snakemake in this process, which it ends.

    Raises:
        ConfigError, MethodError: what would stop the experiment, a line each.
    """
    check(grid := Grid(read_config([path], words)))
    PASSED.append(grid.config)
    if not SNAKEFILE.exists():
        raise ConfigError("the workflow lies in the repository, not in the installed package; run this in a checkout")
    settle()
    from snakemake.cli import main as snakemake

    base = ["--snakefile", str(SNAKEFILE), "--configfile", path]
    snakemake([*base, *(["--config", f"set={shlex.join(words)}"] if words else []), *options])


def settle() -> None:
    """Give Snakemake and the libraries a user's name and a home to keep their caches in, where the system has none.

    What the hub's own cache holds in a home that may only be read stays in use.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"user{os.getuid()}")
    home = os.environ.get("HOME") or os.path.expanduser("~")
    if "XDG_CACHE_HOME" in os.environ or (os.path.isdir(home) and os.access(home, os.W_OK)):
        return
    own = Path(".snakemake", "home").absolute()
    own.mkdir(parents=True, exist_ok=True)
    if (hub := Path(home, ".cache", "huggingface")).is_dir():
        os.environ.setdefault("HF_HOME", str(hub))
    os.environ["HOME"] = str(own)
    print(f"{home} is no folder that may be written; .snakemake/home is the home of this run", file=sys.stderr)


def main(arguments: list[str]) -> None:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    path, *words = arguments[:end]
    try:
        start(path, words, arguments[end + 1 :])
    except (ConfigError, MethodError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
