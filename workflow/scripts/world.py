from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_world
from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params, (result,) = snakemake.params, snakemake.params.results
    store_world(
        Path(result["record"]),
        seed=params.seed,
        options=params.options,
        rows_only=params.rows_only,
        ticket=Ticket(**result["ticket"]),
        threads=snakemake.threads,
    )
