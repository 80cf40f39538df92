# Scores and masks of every run against the planted truth, where the data carries it.


rule selection:
    input:
        JOBS.all_done(),
    output:
        touch(stamp("selection")),
        selection=f"{ROOT}/selection.csv",
    log:
        f"{ROOT}/logs/selection.log",
    benchmark:
        f"{ROOT}/logs/selection.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        runs=[GRID.selection_source(run) for run in GRID.noisy_runs()],
    message:
        "score the selection against the planted truth"
    script:
        "../scripts/selection.py"
