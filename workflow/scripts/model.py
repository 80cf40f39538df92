from pathlib import Path

from sstoken.config import ModelEntry
from sstoken.jobs import logged
from sstoken.jobs.prepare import store_model

with logged(snakemake.log[0]):
    store_model(ModelEntry(**snakemake.params.entry), Path(snakemake.output[0]), threads=snakemake.threads)
