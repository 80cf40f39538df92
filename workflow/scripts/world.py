from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_world

with logged(snakemake.log[0]):
    params = snakemake.params
    store_world(Path(snakemake.output[0]), seed=params.seed, options=params.options, threads=snakemake.threads)
