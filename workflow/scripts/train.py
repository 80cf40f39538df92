from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.jobs.train import Order, train_all
    from sstoken.records.devices import own_gpus

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    params = snakemake.params
    common = {name: params[name] for name in ("references", "device")} | {"threads": snakemake.threads}
    train_all(
        [
            Order.of(out=Path(result["record"]).parent, ticket=result["ticket"], **run, **common)
            for result, run in zip(params.results, params.runs, strict=True)
        ]
    )
