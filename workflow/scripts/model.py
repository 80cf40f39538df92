from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.jobs.prepare import store_model
    from sstoken.models.table import ModelEntry

with logged(snakemake.log[0]):
    params = snakemake.params
    bases = Path(params.bases) if params.bases else None
    store_model(ModelEntry(**params.entry), Path(snakemake.output[0]), bases=bases, threads=snakemake.threads)
