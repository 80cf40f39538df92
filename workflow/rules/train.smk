# Training runs; a self-evolving method is a chain of runs, one a part of the data.


for batch in training_batches(GRID):

    rule:
        name:
            batch.rule
        input:
            batch.inputs(GRID.run_inputs),
        output:
            batch.outputs,
        log:
            f"{ROOT}/logs/train/{batch.log}.log",
        benchmark:
            f"{ROOT}/logs/train/{batch.log}.benchmark.tsv"
        wildcard_constraints:
            model=any_of(batch.models),
        priority: TRAINING
        conda:
            "../envs/sstoken.yaml"
        threads: 1
        resources:
            mem_mb=memory_of_run,
            runtime=lambda w, attempt, batch=batch: attempt * runtime(GRID, "train", w.model, batch.of(w), 720),
            gpu=gpus_of_run,
        params:
            runs=lambda w, batch=batch: [GRID.order(run) for run in batch.of(w)],
            training=CONFIG["training"],
            references=CONFIG["references"],
            device=CONFIG["device"],
        message:
            f"train {batch.title}"
        script:
            "../scripts/train.py"
