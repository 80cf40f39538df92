# Every run on every benchmark, all benchmarks of a run in one job.


for group in evaluation_groups(GRID):

    rule:
        name:
            group.rule
        input:
            group.inputs(GRID.evaluation_inputs),
        output:
            records=group.outputs,
            samples=[str(Path(record).with_name("samples.parquet")) for record in group.outputs],
        log:
            f"{ROOT}/logs/evaluate/{group.log}.log",
        benchmark:
            f"{ROOT}/logs/evaluate/{group.log}.benchmark.tsv"
        wildcard_constraints:
            model=any_of(group.models),
        conda:
            "../envs/sstoken.yaml"
        threads: 1
        resources:
            mem_mb=memory,
            runtime=lambda w, attempt, batch=batch: attempt * runtime(GRID, "evaluate", w.model, batch.of(w), 720),
            gpu=gpus,
        params:
            trained=lambda w, group=group: [GRID.all_methods[run.method].trains for run in group.of(w)],
            benchmarks=CONFIG["benchmarks"],
            benchmarks_file=CONFIG["benchmarks_file"],
            benchmarks_data=GRID.benchmarks_data,
            evaluation=GRID.evaluation,
            device=CONFIG["device"],
        message:
            f"evaluate {group.title}"
        script:
            "../scripts/evaluate.py"
