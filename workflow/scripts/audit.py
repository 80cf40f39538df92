from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.experiment.config import TrainingSettings
    from sstoken.jobs.audit import Order, audit
    from sstoken.records.devices import own_gpus

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    params, inputs = snakemake.params, snakemake.params.inputs
    audit(
        Order(
            model=snakemake.wildcards.model,
            entries=params.entries,
            base=Path(inputs["model"]).parent,
            tokens=Path(inputs["tokens"]),
            heldout=Path(inputs["heldout"][0]) if inputs["heldout"] else None,
            losses={signal: Path(path) for signal, path in params.losses.items()},
            settings=TrainingSettings.of(params.training),
            seed=params.seed,
            out=Path(snakemake.output.record).parent,
            device=params.device,
            threads=snakemake.threads,
        )
    )
