"""The fault campaign: a small grid is killed, damaged, moved and crowded; the same command must then end with the same bytes.

``make campaign``, or ``python -m tests.campaign [--only kills damage …] [--kills 50] [--seed 0] [--minutes 600]``.
Counts go to ``results/campaign/counts/``, a file a start, and from there into ``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

from sstoken.records.provenance import processor
from tests.campaign.kills import kills
from tests.campaign.memory import memory
from tests.campaign.numbers import numbers
from tests.campaign.places import crowd, moves
from tests.campaign.preemption import preemption
from tests.campaign.runs import Campaign, Count
from tests.campaign.storage import damage, full_disk
from tests.flow import ROOT

KINDS = ("kills", "damage", "disk", "moves", "crowd", "numbers", "memory", "preemption")
START, END = "<!-- campaign -->\n", "<!-- end -->\n"


def table(documents: list[dict]) -> str:
    """Of all starts together: a row a kind of fault."""
    rows: dict[str, Count] = {}
    for count in (Count(**entry) for document in documents for entry in document["counts"]):
        row = rows.setdefault(count.what, Count(count.what))
        row.tried, row.survived, row.lost = (
            row.tried + count.tried,
            row.survived + count.survived,
            row.lost + count.lost,
        )
        row.seconds, row.failures = row.seconds + count.seconds, row.failures + count.failures
    lines = [
        "| fault | tried | survived | finished results made again | seconds to the end, median |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows.values():
        seconds = f"{statistics.median(row.seconds):.0f}" if row.seconds else ""
        lines.append(f"| {row.what} | {row.tried} | {row.survived} | {row.lost} | {seconds} |")
    alone = statistics.median(document["seconds"] for document in documents)
    seeds = ", ".join(sorted({str(document["seed"]) for document in documents}, key=int))
    machines = ", ".join(sorted({document["machine"] for document in documents}))
    said = f"Seeds {seeds}; {machines}. An unbroken run took {alone:.0f} seconds on it while other work ran."
    return "\n".join([*lines, "", said, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0, help="of every draw")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damages", type=int, default=48, help="kinds of file times kinds of damage, drawn")
    parser.add_argument("--disks", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=600, help="after these no new fault is drawn")
    parser.add_argument("--folder", type=Path, default=Path("results/campaign"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    asked = parser.parse_args()
    campaign = Campaign(asked.folder / "runs", asked.seed, asked.minutes)
    draws = {
        "kills": lambda: kills(campaign, asked.kills),
        "damage": lambda: damage(campaign, asked.damages),
        "disk": lambda: full_disk(campaign, asked.disks),
        "moves": lambda: moves(campaign),
        "crowd": lambda: crowd(campaign),
        "numbers": lambda: numbers(campaign),
        "memory": lambda: memory(campaign),
        "preemption": lambda: preemption(campaign),
    }
    counts = asked.folder / "counts" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    counts.parent.mkdir(parents=True, exist_ok=True)
    machine = f"{os.cpu_count()} cores of {processor()}"

    def keep() -> None:
        """What has been counted so far, and the table of all starts."""
        document = {"seed": asked.seed, "seconds": campaign.seconds, "machine": machine}
        counts.write_text(json.dumps(document | {"counts": [asdict(c) for c in campaign.counts.values()]}, indent=1))
        documents = [json.loads(path.read_text()) for path in sorted(counts.parent.glob("*.json"))]
        before, _, rest = asked.out.read_text().partition(START)
        asked.out.write_text(before + START + table(documents) + END + rest.partition(END)[2])

    campaign.keep = keep
    for kind in asked.only:
        draws[kind]()
        keep()
    failed = sum(count.tried - count.survived for count in campaign.counts.values())
    print(f"{failed} of {sum(c.tried for c in campaign.counts.values())} faults not survived", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
