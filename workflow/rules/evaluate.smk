# Every run on every benchmark, all benchmarks of a run in one job.


for batch in evaluation_batches(GRID):

    rule:
        name:
            batch.rule
        input:
            batch.inputs(GRID.evaluation_inputs),
        output:
            records=batch.outputs,
            samples=[str(Path(record).with_name("samples.parquet")) for record in batch.outputs],
        log:
            f"{ROOT}/logs/evaluate/{batch.log}.log",
        benchmark:
            f"{ROOT}/logs/evaluate/{batch.log}.benchmark.tsv"
        wildcard_constraints:
            model=any_of(batch.models),
        conda:
            "../envs/sstoken.yaml"
        threads: 1
        resources:
            mem_mb=memory,
            runtime=lambda w, attempt, batch=batch: attempt * runtime(GRID, "evaluate", w.model, batch.of(w), 720),
            gpu=gpus,
        params:
            trained=lambda w, batch=batch: [GRID.all_methods[run.method].trains for run in batch.of(w)],
            benchmarks=CONFIG["benchmarks"],
            benchmarks_file=CONFIG["benchmarks_file"],
            benchmarks_data=GRID.benchmarks_data,
            evaluation=GRID.evaluation,
            device=CONFIG["device"],
        message:
            f"evaluate {batch.title}"
        script:
            "../scripts/evaluate.py"
