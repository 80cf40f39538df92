from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_base

with logged(snakemake.log[0]):
    store_base(snakemake.wildcards.base, snakemake.params.share, Path(snakemake.output[0]), threads=snakemake.threads)
