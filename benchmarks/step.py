"""Time and memory of one training step: forward, scoring, backward, optimiser.

Every case runs in a process of its own, so that its peak memory is its own.  The processes of a group take turns, a step
each, round after round: whatever else the machine does meets all of them alike, and each case is paired with the
``hf-full`` step of the same round.  All cases run in the same Trainer with the same arguments, model, adapters and
samples; what differs is the loss (benchmarks/cases.py).  ``python benchmarks/step.py --help`` says what can be set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.turns import BASELINE, OWN_FULL, measure, rows_of  # noqa: E402

MIXED_TOO = (BASELINE, "all-attentions", OWN_FULL, "random", "sstoken")


def table(rows: list[dict]) -> str:
    whole = next((row for row in rows if row["case"] == "all-attentions"), None)
    head = f"{'case':28} {'seconds':>8} {'/hf-full (min-max)':>22} {'/full (min-max)':>22} {'CPU s':>7} {'peak MB':>8}"
    head += f" {'growth MB':>9} {'selection':>9} {'/all-attentions: s':>18} {'peak':>6}"
    lines = [f"{rows[0]['device']}; {rows[0]['shape']}; medians of {len(rows[0]['seconds_each'])} rounds", head]
    for row in rows:
        ratios = [_spread(row[name], row[f"{name}_each"]) for name in ("ratio_to_hf_full", "ratio_to_own_full")]
        memory = f"{row['peak_memory_bytes'] / 1e6:8.0f} {row['peak_growth_bytes'] / 1e6:9.0f}"
        memory += f" {row['selection_share']:9.2%}"
        seconds, peak = (
            ("", "") if whole is None else (f"{row[key] / whole[key]:.3f}" for key in ("seconds", "peak_memory_bytes"))
        )
        lines.append(
            f"{row['case']:28} {row['seconds']:8.3f} {ratios[0]:>22} {ratios[1]:>22} {row['cpu_seconds']:7.2f} {memory}"
            f" {seconds:>18} {peak:>6}"
        )
    return "\n".join(lines)


def _spread(median: float | None, pairs: list[float] | None) -> str:
    return "" if pairs is None else f"{median:.3f} ({min(pairs):.3f}-{max(pairs):.3f})"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a causal language model; default: SmolLM2-135M-Instruct")
    parser.add_argument("--random", action="store_true", help="random weights of the folder's architecture")
    parser.add_argument("--all", action="store_true", help="also mixed precision, growth and flat arrays (make bench)")
    parser.add_argument("--mixed", action="store_true", help="bfloat16 autocast in every case (mixed precision)")
    parser.add_argument("--cases", nargs="+", default=["all"], help="names, or all (default)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument(
        "--warm-up", type=int, default=2, help="rounds before: allocators, kernels and optimiser state come into being"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of a step")
    parser.add_argument("--together", type=int, default=2, help="cases in memory at a time, beside hf-full")
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--seed", type=int, default=0, help="of tokens, stored signals and adapters")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/step.json")
    parser.add_argument(
        "--samples",
        nargs="+",
        default=["120+260", "200+340", "90+420"],
        metavar="PROMPT+RESPONSE",
        help="tokens of each sample of the batch",
    )
    options = parser.parse_args(arguments)
    options.samples = [tuple(int(part) for part in sample.split("+")) for sample in options.samples]
    return options


def main() -> None:
    from sstoken.records.devices import own_gpus

    options = parse()
    with own_gpus(0 if options.cpu else 1):  # of several, Trainer would split the batch over all
        run(options)


def run(options: argparse.Namespace) -> None:
    # threads that wait for work by spinning take a shared machine's cores from each other: a step of ten seconds took
    # a hundred.  Asleep they cost next to nothing.  Read when a worker loads torch, so it is set here.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from benchmarks.arrays import array_rows
    from benchmarks.cases import check_names, default_model, left_out
    from benchmarks.growth import growth_rows, growth_table
    from sstoken.records.files import atomic_write

    for case, reason in left_out(options.cpu).items():
        print(f"{case}: skipped, {reason}")
    options.cases = check_names(options.cases, options.cpu)
    options.model = options.model or default_model(ROOT / "results/bench/SmolLM2-135M-Instruct")
    document: list[dict] = []

    def done(rows: list[dict], text: str) -> None:
        """What was measured is shown and written at once: the rest may take half an hour more."""
        document.extend(rows)
        print(text, end="\n\n", flush=True)
        with atomic_write(options.out) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n")

    rows = step_rows(options)
    done(rows, table(rows))
    if not options.all:
        return
    arrays = array_rows(options.threads)
    line = "{case:28} {seconds:8.3f} s {0:8.0f} MB more"
    done(arrays, "\n".join(line.format(row["peak_memory_bytes"] / 1e6, **row) for row in arrays))
    # mixed precision differs in what adapters cost: a few cases show it
    mixed_options = argparse.Namespace(**vars(options) | {"mixed": True})
    mixed_options.cases = [case for case in options.cases if case in MIXED_TOO]
    mixed = step_rows(mixed_options)
    done(mixed, table(mixed))
    growth, exponents = growth_rows(options, [BASELINE, OWN_FULL, "sstoken"])
    done(growth, growth_table(exponents))
    with atomic_write(options.out.with_name("growth.json")) as temporary:
        temporary.write_text(json.dumps(exponents, indent=1) + "\n")


def step_rows(options: argparse.Namespace) -> list[dict]:
    """The rows of all cases on one batch; both full-data steps run beside every group of cases."""
    precision = "bfloat16 autocast" if options.mixed else "bfloat16"
    shape = f"{options.model.name} {precision} LoRA r=64, " + " ".join(f"{p}+{r}" for p, r in options.samples)
    beside = [case for case in (BASELINE, OWN_FULL) if case in options.cases]
    rows = []
    for group in groups([case for case in options.cases if case not in beside], options.together):
        found = rows_of(measure(beside + group, options), shape)
        rows += found[len(beside) :] if rows else found
    return rows


def groups(cases: list[str], together: int) -> list[list[str]]:
    """Cases that are in memory at a time; one that holds full logits has none beside it."""
    from benchmarks.cases import HEAVY

    found: list[list[str]] = []
    for case in cases:
        if not found or len(found[-1]) == together or {case, found[-1][-1]} & HEAVY:
            found.append([])
        found[-1].append(case)
    return found or [[]]


if __name__ == "__main__":
    main()
