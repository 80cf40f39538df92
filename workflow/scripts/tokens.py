from functools import partial
from pathlib import Path

from sstoken.jobs import each, imports, logged

with imports():
    from sstoken.jobs.prepare import store_tokens

with logged(snakemake.log[0]):
    params = snakemake.params
    common = {"name": snakemake.wildcards.model, "text": params.text, "threads": snakemake.threads}
    model = Path(snakemake.input.model).parent
    each(
        (dataset, partial(store_tokens, model=model, dataset=dataset, section=section, out=Path(out), **common))
        for (dataset, section), out in zip(params.sections.items(), snakemake.output.tokens, strict=True)
    )
