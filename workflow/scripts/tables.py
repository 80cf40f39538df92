from pathlib import Path

from sstoken.jobs import logged
from sstoken.report.tables import write_tables

with logged(snakemake.log[0]):
    write_tables(
        Path(snakemake.input.samples),
        Path(snakemake.input.costs),
        Path(snakemake.input.benchmarks),
        Path(snakemake.output.main).parent,
        selection=next(map(Path, snakemake.input.get("selection", [])), None),
        **dict(snakemake.params.items()),
    )
