# Every run on every benchmark, all benchmarks of a run in one job.


rule evaluate:
    input:
        lambda w: names(f for s in seeds_of_job(w) for f in GRID.evaluation_inputs(w.model, w.method, s)),
    output:
        per_seed(f"{ROOT}/scores/{{model}}/{{method}}/seed{{seed}}/evaluation.json"),
        per_seed(f"{ROOT}/scores/{{model}}/{{method}}/seed{{seed}}/samples.parquet"),
    log:
        f"{job_log('evaluate')}.log",
    benchmark:
        f"{job_log('evaluate')}.benchmark.tsv"
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
        benchmarks=CONFIG["benchmarks"],
        benchmarks_file=CONFIG["benchmarks_file"],
        benchmarks_data=GRID.benchmarks_data,
        evaluation=CONFIG["evaluation"],
        trains=lambda w: GRID.all_methods[w.method].trains,
        device=CONFIG["device"],
    script:
        "../scripts/evaluate.py"


use rule evaluate as evaluate_shared with:
    output:
        f"{ROOT}/scores/{{model}}/{{method}}/seed{{seed}}/evaluation.json",
        f"{ROOT}/scores/{{model}}/{{method}}/seed{{seed}}/samples.parquet",
    log:
        f"{ROOT}/logs/evaluate/{{model}}/{{method}}.seed{{seed}}.log",
    benchmark:
        f"{ROOT}/logs/evaluate/{{model}}/{{method}}.seed{{seed}}.benchmark.tsv"
    wildcard_constraints:
        method=any_of(SHARED),
