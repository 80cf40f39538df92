from functools import partial
from pathlib import Path

from sstoken.jobs import each, imports, logged

with imports():
    from sstoken.jobs.losses import store_losses
    from sstoken.models.load import Weights
    from sstoken.records.devices import own_gpus
    from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    params = snakemake.params
    common = {"settings": params.settings, "device": params.device, "name": params.model, "threads": snakemake.threads}
    each(
        (
            label,
            partial(
                store_losses,
                weights=Weights(Path(params.folder), Path(run) if run else None),
                tokens=Path(tokens),
                out=Path(out),
                label=label,
                ticket=Ticket(**ticket),
                **common,
            ),
        )
        for label, run, tokens, out, ticket in params.asked
    )
