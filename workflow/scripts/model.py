from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.jobs.prepare import store_model
    from sstoken.models.table import ModelEntry
    from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params, (result,) = snakemake.params, snakemake.params.results
    store_model(
        ModelEntry(**params.entry),
        Path(result["record"]),
        ticket=Ticket(**result["ticket"]),
        bases=Path(params.bases) if params.bases else None,
        threads=snakemake.threads,
    )
