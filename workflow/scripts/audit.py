from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.jobs.audit import Order, audit
    from sstoken.records.devices import own_gpus

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    params = snakemake.params
    audit(Order.of(params.order, out=Path(params.out), device=params.device, threads=snakemake.threads))
