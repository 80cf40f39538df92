from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.fetch import store_hub_rows
from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params, (result,) = snakemake.params, snakemake.params.results
    store_hub_rows(
        params.source,
        Path(result["record"]).with_suffix(".jsonl"),
        lock=Path(params.lock),
        ticket=Ticket(**result["ticket"]),
        threads=snakemake.threads,
    )
