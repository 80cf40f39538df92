# Training runs; a self-evolving method is a chain of jobs, one a part of the data.


rule train:
    input:
        lambda w: names(f for s in seeds_of_job(w) for f in GRID.run_inputs(Run(w.model, w.method, s))),
    output:
        per_seed(f"{ROOT}/runs/{{model}}/{{method}}/seed{{seed}}/run.json"),
    log:
        f"{job_log('train')}.log",
    benchmark:
        f"{job_log('train')}.benchmark.tsv"
    wildcard_constraints:
        method=any_of(SEEDED),
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=720,
        gpu=gpus,
    params:
        entry=lambda w: GRID.method_entry(w.method, w.model),
        labels=lambda w: [GRID.labels(w.method, seed) for seed in seeds_of_job(w)],
        training=CONFIG["training"],
        references=CONFIG["references"],
        device=CONFIG["device"],
    script:
        "../scripts/train.py"


use rule train as train_shared with:
    output:
        f"{ROOT}/runs/{{model}}/{{method}}/seed{{seed}}/run.json",
    log:
        f"{ROOT}/logs/train/{{model}}/{{method}}.seed{{seed}}.log",
    benchmark:
        f"{ROOT}/logs/train/{{model}}/{{method}}.seed{{seed}}.benchmark.tsv"
    wildcard_constraints:
        method=any_of(SHARED),


use rule train as train_part with:
    input:
        lambda w: names(f for s in seeds_of_job(w) for f in GRID.run_inputs(Run(w.model, w.method, s, int(w.part)))),
    output:
        per_seed(f"{ROOT}/runs/{{model}}/{{method}}/seed{{seed}}/part{{part}}/run.json"),
    log:
        f"{job_log('train')}.part{{part}}.log",
    benchmark:
        f"{job_log('train')}.part{{part}}.benchmark.tsv"
