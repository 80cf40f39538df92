# Training runs; a self-evolving method is a chain of runs, one a part of the data.


for group in training_groups(GRID):

    rule:
        name:
            group.rule
        input:
            group.inputs(GRID.run_inputs),
        output:
            group.outputs,
        log:
            f"{ROOT}/logs/train/{group.log}.log",
        benchmark:
            f"{ROOT}/logs/train/{group.log}.benchmark.tsv"
        wildcard_constraints:
            model=any_of(group.models),
        priority: TRAINING
        conda:
            "../envs/sstoken.yaml"
        threads: 1
        resources:
            mem_mb=memory_of_run,
            runtime=lambda w, attempt, batch=batch: attempt * runtime(GRID, "train", w.model, batch.of(w), 720),
            gpu=gpus_of_run,
        params:
            runs=lambda w, group=group: [GRID.order(run) for run in group.of(w)],
            training=CONFIG["training"],
            references=CONFIG["references"],
            device=CONFIG["device"],
        message:
            f"train {group.title}"
        script:
            "../scripts/train.py"
