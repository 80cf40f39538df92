from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.jobs.losses import store_losses
    from sstoken.models.load import Weights
    from sstoken.records.devices import own_gpus

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    run = [Path(record).parent for record in snakemake.input.run]
    store_losses(
        weights=Weights(Path(snakemake.input.model).parent, run[0] if run else None),
        tokens=Path(snakemake.input.tokens),
        settings=snakemake.params.settings,
        out=Path(snakemake.output.losses),
        device=snakemake.params.device,
        name=snakemake.wildcards.model,
        label=snakemake.wildcards.label,
        threads=snakemake.threads,
    )
