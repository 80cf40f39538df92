from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.train import order_training, train

with logged(snakemake.log[0]):
    for record, labels in zip(snakemake.output, snakemake.params.labels, strict=True):
        train(
            order_training(
                out=Path(record).parent,
                model=snakemake.wildcards.model,
                method=snakemake.wildcards.method,
                entry=snakemake.params.entry,
                labels=labels,
                training=snakemake.params.training,
                references=snakemake.params.references,
                device=snakemake.params.device,
                threads=snakemake.threads,
            )
        )
