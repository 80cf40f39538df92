from pathlib import Path

from sstoken.evaluation import load_benchmarks
from sstoken.jobs import logged
from sstoken.jobs.evaluate import evaluate_run

with logged(snakemake.log[0]):
    params = snakemake.params
    for record in (output for output in snakemake.output if output.endswith(".json")):
        evaluate_run(
            out=Path(record).parent,
            trained=params.trains,
            benchmarks=load_benchmarks(params.benchmarks_file, params.benchmarks),
            settings=params.evaluation,
            data_root=params.benchmarks_data,
            device=params.device,
            model=snakemake.wildcards.model,
            method=snakemake.wildcards.method,
            threads=snakemake.threads,
        )
