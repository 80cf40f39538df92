from functools import partial
from pathlib import Path

from sstoken.jobs import each, imports, logged

with imports():
    from sstoken.jobs.prepare import store_tokens
    from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params = snakemake.params
    common = {"name": params.model, "text": params.text, "model": Path(params.folder), "threads": snakemake.threads}
    each(
        (
            dataset,
            partial(store_tokens, dataset=dataset, sections=sections, out=Path(out), ticket=Ticket(**ticket), **common),
        )
        for dataset, sections, out, ticket in params.asked
    )
