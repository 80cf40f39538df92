"""The plan as a person reads it: jobs, work, GPU-hours, wall time, disk, the smallest difference that it could show."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

from sstoken.experiment.check import check
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.plan import Plan, Work
from sstoken.records.documents import PACKAGE, ConfigError

SNAKEFILE = PACKAGE.parent / "Snakefile"
COLUMNS = (
    "stage", "model", "method", "jobs", "forward passes", "backward passes", "forward tokens", "backward tokens", "FLOPs",
    "GPU-hours", "hours a job", "GPUs a job", "GB a GPU",
)  # fmt: skip


def jobs_of(command: list[str]) -> list[tuple[str, int]]:
    """(rule, jobs) of the whole workflow, as Snakemake itself plans it; [] where there is no workflow beside the package."""
    if not SNAKEFILE.exists() or importlib.util.find_spec("snakemake") is None:
        return []
    base = ["--snakefile", str(SNAKEFILE), "--cores", "1", "--dry-run", "--forceall"]
    done = subprocess.run([sys.executable, "-m", "snakemake", *base, *command], capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode or "Job stats:" not in text:
        raise ConfigError(f"snakemake --dry-run failed:\n{text[-2000:]}")
    lines = text.split("Job stats:")[1].split("\n\n")[0].splitlines()
    return [(name, int(count)) for name, count in (line.split() for line in lines[3:])]


def render(plan: Plan, jobs: list[tuple[str, int]], submission: str = "", gpus: tuple[int, ...] = (1, 8, 32)) -> str:
    """The plan as Markdown. submission: the command that starts it on a cluster. gpus: numbers of GPUs to give days for."""
    rates, kind = plan.throughput()
    lines = ["| rule | jobs |", "|---|--:|", *(f"| {rule} | {count} |" for rule, count in jobs), ""] if jobs else []
    lines += [f"| {' | '.join(COLUMNS)} |", "|---|---|---|" + "--:|" * (len(COLUMNS) - 3)]
    total, hours = Work(), 0.0
    for (stage, model, method), work in plan.table().items():
        total += work
        spent = work.flops / rates[stage] / 3600 if stage in rates else None
        hours += spent or 0.0
        job = plan.job_hours(stage, model, work.flops / work.jobs) if work.jobs else None
        lines.append(
            _row(stage, model, method, work, spent, job, plan.gpus(stage, model), plan.memory(model, stage) / 1e9)
        )
    lines.append(_row("total", "", "", total, hours if rates else None, None, None, None))
    sentences = [
        "",
        _tokens(plan),
        *_evaluation(plan),
        f"Throughput: {kind}.",
        *_longest(plan),
        *_wall_time(plan, hours, gpus),
        _shared(plan, total),
    ]
    sentences.append("Disk: " + ", ".join(f"{what} {size / 1e9:.1f} GB" for what, size in plan.disk().items()) + ".")
    sentences.append(_detectable(plan))
    if submission:
        sentences += ["", "On a SLURM cluster, from the login node:", "", f"    {submission}"]
    return "\n".join([*lines, *sentences]) + "\n"


def _row(stage: str, model: str, method: str, work: Work, hours, job, gpus, memory) -> str:
    numbers = [work.jobs, f"{work.forward_passes:g}", f"{work.backward_passes:g}", f"{work.forward:.2e}"]
    numbers += [f"{work.backward:.2e}", f"{work.flops:.2e}"]
    last = [_number(hours, ".1f"), _number(job, ".2f"), "" if gpus is None else str(gpus), _number(memory, ".1f")]
    return f"| {' | '.join(map(str, [stage, model, method, *numbers, *last]))} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _tokens(plan: Plan) -> str:
    estimated = {
        f"{model} {method.data}" for model in plan.grid.models for method in plan.grid.needed_methods(model)
        if method.trains and not plan.rows(model, method.data).measured
    }  # fmt: skip
    if not estimated:
        return "Tokens: measured."
    settings = plan.settings
    return (
        f"Tokens: estimated ({settings['tokens_per_sample']} a sample, {settings['response_share']:.0%} of them response) for "
        f"{len(estimated)} of the data sets; no token file of theirs exists yet."
    )


def _evaluation(plan: Plan) -> list[str]:
    lines = [
        "Evaluation: questions of the whole benchmarks or the limit, tokens a question as measured on samples "
        f"({plan.sizes_file})."
    ]
    unknown = [name for name in plan.config["benchmarks"] if not plan.questions(name)]
    if unknown:
        lines.append(
            f"Not counted: {', '.join(unknown)}; {plan.sizes_file} does not know how long their questions are."
        )
    return lines


def _longest(plan: Plan) -> list[str]:
    """The job that a partition's limits must allow."""
    found = [
        (plan.job_hours(stage, model, work.flops / work.jobs), stage, model, method)
        for (stage, model, method), work in plan.table().items()
        if work.jobs
    ]
    known = [row for row in found if row[0] is not None]
    if not known:
        return []
    hours, *what = max(known)
    most = max((plan.gpus(stage, model) or 0, stage, model) for _, stage, model, _ in found)
    return [
        f"Longest job: {hours:.2f} hours ({' '.join(filter(None, what))}). Most GPUs a job: {most[0]} ({most[1]} {most[2]})."
    ]


def _wall_time(plan: Plan, hours: float, gpus: tuple[int, ...]) -> list[str]:
    critical = plan.critical_hours()
    if critical is None or not hours:
        return []
    times = [f"{max(hours / count, critical) / 24:.1f} on {count}" for count in gpus]
    return [
        f"Wall time in days, by GPUs: {', '.join(times)}; the longest chain of jobs takes {critical / 24:.1f}. Each job asks "
        "for twice its estimate and half an hour more."
    ]


def _shared(plan: Plan, total: Work) -> str:
    alone, shared = plan.alone(), plan.shared()
    saved = alone - shared
    share = f", {saved / (total.flops + saved):.0%} of what it would have been" if saved > 0 else ""
    return (
        f"References and their passes: {shared:.2e} FLOPs shared, {alone:.2e} if each run made its own: {saved:.2e} saved"
        f"{share}."
    )


def _detectable(plan: Plan) -> str:
    smallest = plan.detectable()
    if smallest is None:
        return "Detectable at 80 %: not known, as the number of questions is not."
    benchmarks = plan.averaged
    seeds = len(plan.grid.seeds)
    return (
        f"Detectable at 80 %: {100 * smallest:.1f} points between two methods' averages, from "
        f"{sum(map(plan.questions, benchmarks))} questions in {len(benchmarks)} benchmarks and "
        f"{seeds} seed{'s' * (seeds > 1)}. "
        f"This assumes that two methods answer {plan.discordance:.0%} of the questions differently and that a method's average "
        f"has a standard deviation of {100 * plan.seed_sd:.2f} points over seeds; the report measures both."
    )


def plan_text(path: str | Path, words: list[str], *, gpus: tuple[int, ...] = (1, 8, 32)) -> str:
    """Check the configuration and everything it needs, and render its plan.

    Raises:
        ConfigError, MethodError: what would stop the experiment, a line each.
    """
    grid = Grid(read_config([path], words))
    check(grid)
    settings = ["--config", f"set={shlex.join(words)}"] if words else []
    jobs = jobs_of(["--configfile", str(Path(path).absolute()), *settings])
    command = ["snakemake", "--workflow-profile", "workflow/profiles/slurm", "--configfile", str(path), *settings]
    submission = f"{shlex.join(command)} --default-resources slurm_account=ACCOUNT slurm_partition=PARTITION"
    return f"# {grid.config['experiment']}\n\n{render(Plan(grid.config), jobs, submission, gpus)}"
