from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.fetch import store_benchmarks

with logged(snakemake.log[0]):
    store_benchmarks(
        snakemake.params.benchmarks,
        Path(snakemake.output[0]).parent,
        benchmarks_file=snakemake.params.benchmarks_file,
        datasets_file=snakemake.params.datasets_file,
        lock=Path(snakemake.params.lock),
        threads=snakemake.threads,
    )
