from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.evaluation import load_benchmarks
    from sstoken.jobs.evaluate import evaluate_all
    from sstoken.records.devices import own_gpus
    from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]), own_gpus(snakemake.resources.get("gpu", 0)):
    params = snakemake.params
    evaluate_all(
        [Path(result["record"]) for result in params.results],
        params.trained,
        [Ticket(**result["ticket"]) for result in params.results],
        benchmarks=load_benchmarks(params.benchmarks_file, params.benchmarks),
        settings=params.evaluation,
        data_root=params.benchmarks_data,
        device=params.device,
        threads=snakemake.threads,
    )
