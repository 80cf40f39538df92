from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_base
from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params, (result,) = snakemake.params, snakemake.params.results
    options = {"ticket": Ticket(**result["ticket"]), "threads": snakemake.threads}
    store_base(result["key"][0], params.share, params.facts, Path(result["record"]), **options)
