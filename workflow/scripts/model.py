from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.config import ModelEntry
    from sstoken.jobs.prepare import store_model

with logged(snakemake.log[0]):
    params = snakemake.params
    bases = Path(params.bases) if params.bases else None
    store_model(ModelEntry(**params.entry), Path(snakemake.output[0]), bases=bases, threads=snakemake.threads)
