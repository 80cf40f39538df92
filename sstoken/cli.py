"""The command ``sstoken``: what there is, what it would cost, how far it is, what came out."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from sstoken import __version__

EXAMPLES = """\
examples:
  sstoken methods                                    every method: equation, cost, claim, what came out here
  sstoken doctor config/smollm2.yaml                 what of this machine would stop that run
  sstoken plan config/paper.yaml seeds=[0]           jobs, GPU-hours and disk, before anything runs
  sstoken status config/config.yaml                  which results are current, stale or missing, and why
  sstoken report config/config.yaml                  the page of a grid that is still running
  sstoken compare results/idea results/idea-lr       two experiments, question by question

key=value words change one setting each; points reach into blocks:
  sstoken plan config/paper.yaml training.adapter.rank=16 "evaluation={limit: 100}"
config/README.md explains every key.
"""


def main(words: list[str] | None = None) -> None:
    """Run one command. Exit status: 0 done; 1 something that was asked for cannot be, said in one line; 2 wrong usage."""
    arguments = _parser().parse_args(words)
    try:
        sys.exit(arguments.run(arguments))
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:
        if not _for_the_user(error):
            raise
        sys.exit(f"sstoken {arguments.command}: {_line(error)}")


def _for_the_user(error: Exception) -> bool:
    """An error that this package raises about what it was given, or a file that is not there: its message is all."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    raised_here = trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("sstoken.")
    own = type(error).__module__.startswith("sstoken.") or (type(error) is ValueError and raised_here)
    return own or (isinstance(error, OSError) and error.filename is not None)


def _line(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sstoken",
        description="Does selecting tokens during supervised fine-tuning help, how much, and at what cost?",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"sstoken {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    methods = _add(commands, "methods", _methods, "every method: equation, needs, cost, source, claim, what our runs say",
                   "sstoken methods\n"
                   "sstoken methods dft toss               these alone\n"
                   "sstoken methods config/mine.yaml       with the methods of that configuration\n"
                   "sstoken methods --json")  # fmt: skip
    methods.add_argument(
        "names", nargs="*", metavar="NAME", help="names of methods; a path or a .yaml is a configuration"
    )
    methods.add_argument(
        "--json",
        action="store_true",
        help="a list of objects: name, kind, equation, needs, cost, source, claims, measured",
    )

    plan = _add(commands, "plan", _plan, "what a configuration would cost, before it runs",
                "sstoken plan config/paper.yaml\nsstoken plan config/paper.yaml seeds=[0] --gpus 4 16")  # fmt: skip
    _settings(plan)
    plan.add_argument("--gpus", nargs="+", type=_count, default=[1, 8, 32], help="numbers of GPUs to give the days for")

    report = _add(commands, "report", _report, "the page of a grid that is still running or has failed",
                  "sstoken report config/config.yaml")  # fmt: skip
    _settings(report)

    results = _add(commands, "results", _results, "put the tables of finished runs into README and docs",
                   "sstoken results\nsstoken results notes.md     with <!-- table: averages world --> in it")  # fmt: skip
    pages = ["README.md", "docs/results.md", "docs/safety.md", "docs/reference/methods.md"]
    results.add_argument(
        "files", nargs="*", type=Path, default=[Path(name) for name in ("sstoken/selection/methods/measured.csv", *pages)],
        help="pages, or a .csv: what the runs say of each method; by default those of this repository",
    )  # fmt: skip

    doctor = _add(commands, "doctor", _doctor, "what of this machine would stop a run (exit status 1 if something would)",
                  "sstoken doctor\nsstoken doctor config/paper.yaml")  # fmt: skip
    doctor.add_argument("config", nargs="?", help="a configuration to look at too")
    doctor.add_argument("settings", nargs="*", metavar="key=value", help="settings over it")

    status = _add(commands, "status", _status, "which results are current, stale or missing, and why",
                  "sstoken status config/config.yaml")  # fmt: skip
    _settings(status)

    audit = _add(commands, "audit", _audit, "every method's scores on one training run a model: do they find the noise?",
                 "sstoken audit config/idea.yaml\n"
                 "sstoken audit --method ideas/mine.py     a scorer of yours beside those of config/idea.yaml\n"
                 "sstoken audit config/smollm2.yaml instruct_data=rows.jsonl --method mine.py other.py")  # fmt: skip
    _settings(audit, default="config/idea.yaml")
    audit.add_argument(
        "--method", nargs="+", type=Path, default=[], metavar="FILE", help="scorers of yours, with ρ 0.6"
    )

    explain = _add(commands, "explain", _explain, "which tokens of your rows each method would keep, without training",
                   "sstoken explain rows.jsonl --model world-llama-small --methods sstoken semantic-aware\n"
                   "sstoken explain rows.jsonl --model path/to/model --methods sstoken ideas/mine.py")  # fmt: skip
    explain.add_argument("rows", nargs="+", help="files of rows")
    explain.add_argument("--model", required=True, help="a folder, or a name of the table of models")
    explain.add_argument("--reference", help="the same, for methods that compare with a reference model")
    explain.add_argument("--methods", "--method", nargs="+", default=["sstoken", "semantic-aware"], metavar="METHOD",
                         help="names of methods, or files of scorers of yours (.py), with ρ 0.6")  # fmt: skip
    explain.add_argument("--limit", type=_count, default=5, help="rows shown")
    explain.add_argument("--template", choices=["tulu", "tokenizer"], default="tulu", help="how messages become text")
    explain.add_argument("--out", type=Path, help="also write a page")

    show = _add(commands, "show", _show, "what a run kept and dropped in your rows, token by token",
                "sstoken show results/idea/runs/world-llama-small/sstoken/seed0 --ids train-00007 train-00008\n"
                "sstoken show results/idea/runs/world-llama-small/sstoken/seed0 --format html > kept.html")  # fmt: skip
    show.add_argument("folder", type=Path, help="results/{experiment}/runs/{model}/{method}/seed{seed}")
    show.add_argument("--ids", nargs="+", help="samples, in this order; by default all that were trained on")
    show.add_argument("--format", choices=["text", "jsonl", "html"], default="text")

    compare = _add(commands, "compare", _compare, "two experiments on the same questions: differences, settings",
                   "sstoken compare results/idea results/idea-lr --out folder")  # fmt: skip
    compare.add_argument("a", type=Path, help="results/{experiment}")
    compare.add_argument("b", type=Path, help="the one that is compared with it: differences are b minus a")
    compare.add_argument("--method", help="this method alone")
    compare.add_argument("--out", type=Path, help="also write table and figure into this folder")

    split = _add(commands, "split", _split, "split federated fine-tuning: answers right against prompt states sent",
                 "sstoken split config/split.yaml")  # fmt: skip
    split.add_argument("config", help="config/split.yaml, or one like it")
    return parser


def _add(commands, name: str, run, what: str, examples: str) -> argparse.ArgumentParser:
    epilog = f"examples:\n{textwrap.indent(examples, '  ')}" if examples else None
    parser = commands.add_parser(
        name, help=what, description=what, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _settings(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    told = f"the configuration; by default {default}" if default else "the configuration, e.g. config/config.yaml"
    parser.add_argument("config", nargs="?" if default else None, default=default, help=told)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings over it, e.g. training.epochs=2")


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of GPUs")
    return int(text)


def _grid(arguments: argparse.Namespace):
    from sstoken.experiment.config import read_config
    from sstoken.experiment.grid import Grid

    return Grid(read_config([arguments.config], arguments.settings))


def _methods(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    from sstoken.experiment.catalogue import catalogue
    from sstoken.experiment.catalogue_text import text
    from sstoken.records.documents import ConfigError
    from sstoken.selection.methods import load_methods

    configs = [word for word in arguments.names if _is_configuration(word)]
    if len(configs) > 1:
        raise ConfigError(f"one configuration at a time, not {' and '.join(configs)}")
    arguments.config, arguments.settings = next(iter(configs), None), []
    names = [word for word in arguments.names if word not in configs]
    methods = _grid(arguments).all_methods if configs else load_methods()
    items = catalogue(methods, names, *configs)
    print(json.dumps([asdict(item) for item in items], indent=1, ensure_ascii=False) if arguments.json else text(items))


def _is_configuration(word: str) -> bool:
    path = Path(word)
    return path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1


def _plan(arguments: argparse.Namespace) -> None:
    from sstoken.experiment.plan_text import plan_text

    print(plan_text(arguments.config, arguments.settings, gpus=tuple(arguments.gpus)))


def _report(arguments: argparse.Namespace) -> None:
    from sstoken.report.partial import render_partial

    print(render_partial(_grid(arguments)))


def _status(arguments: argparse.Namespace) -> None:
    from sstoken.experiment.status import status_lines

    print("\n".join(status_lines(_grid(arguments).config)))


def _audit(arguments: argparse.Namespace) -> None:
    from sstoken.experiment.config import read_config
    from sstoken.experiment.grid import Grid
    from sstoken.experiment.own import words_of_scorers
    from sstoken.experiment.start import SNAKEFILE, start

    words = list(arguments.settings)
    if arguments.method:
        words += words_of_scorers(read_config([arguments.config], words)["methods"], arguments.method)
    grid = Grid(read_config([arguments.config], words))
    try:
        profile = ["--workflow-profile", str(SNAKEFILE.parent / "workflow" / "profiles" / "default")]
        start(arguments.config, words, [*profile, "--cores", "all", "--quiet", "host", "reason", "--", "audit"])
    except SystemExit as end:  # with which Snakemake ends
        if not end.code:
            print("\n\n".join((grid.root / "audit" / model / "audit.txt").read_text() for model in grid.models))
        raise


def _explain(arguments: argparse.Namespace) -> None:
    from sstoken.jobs.explain import explain
    from sstoken.records.terminal import has_colours

    options = {name: getattr(arguments, name) for name in ("model", "reference", "methods", "limit", "template", "out")}
    print(explain(arguments.rows, colour=has_colours(sys.stdout), **options))


def _show(arguments: argparse.Namespace) -> None:
    from sstoken.report.show import show_run, tokens_of

    tokens, model = tokens_of(arguments.folder)
    print(show_run(arguments.folder, tokens, model, ids=arguments.ids, format=arguments.format))


def _compare(arguments: argparse.Namespace) -> None:
    from sstoken.report.comparison import compare

    found = compare(arguments.a, arguments.b, arguments.method)
    print(found.table)
    for path in found.write(arguments.out) if arguments.out else ():
        print(path)


def _results(arguments: argparse.Namespace) -> None:
    from sstoken.report.fill import fill
    from sstoken.report.measured import measure

    for path in arguments.files:
        done, left = measure(path) if path.suffix == ".csv" else fill(path)
        kept = f"; not run, so left as they are: {', '.join(left)}" if left else ""
        print(f"{path}: {', '.join(done) or 'no table'} written{kept}")


def _split(arguments: argparse.Namespace) -> None:
    from sstoken.split.experiment import read, run

    config = read(arguments.config)
    out = Path("results") / config["experiment"]
    run(config, out)
    print(f"{(out / 'report/tables/split.md').read_text()}\n{out / 'report/figures/split.svg'}")


def _doctor(arguments: argparse.Namespace) -> int:
    from sstoken.experiment.doctor import examine

    findings = examine(_grid(arguments) if arguments.config else None)
    for finding in findings:
        print(finding)
    stopping = sum(finding.stops for finding in findings)
    things = "1 thing would" if stopping == 1 else f"{stopping} things would" if stopping else "nothing here would"
    print(f"{things} stop a run")
    return 1 if stopping else 0


if __name__ == "__main__":
    main()
