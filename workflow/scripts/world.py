from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_world

with logged(snakemake.log[0]):
    store_world(Path(snakemake.output[0]), **snakemake.params.world, threads=snakemake.threads)
