from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.prepare import store_tokens

with logged(snakemake.log[0]):
    store_tokens(
        model=Path(snakemake.input.model).parent,
        section=snakemake.params.section,
        text=snakemake.params.text,
        out=Path(snakemake.output.tokens),
        name=snakemake.wildcards.model,
        dataset=snakemake.wildcards.dataset,
        threads=snakemake.threads,
    )
