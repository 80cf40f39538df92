from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.fetch import store_hub_rows

with logged(snakemake.log[0]):
    store_hub_rows(
        snakemake.params.source,
        Path(snakemake.output.rows),
        lock=Path(snakemake.params.lock),
        threads=snakemake.threads,
    )
