from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.fetch import store_benchmarks
from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params = snakemake.params
    store_benchmarks(
        {result["key"][0]: Ticket(**result["ticket"]) for result in params.results},
        Path(params.results[0]["record"]).parent,
        benchmarks_file=params.benchmarks_file,
        datasets_file=params.datasets_file,
        lock=Path(params.lock),
        threads=snakemake.threads,
    )
