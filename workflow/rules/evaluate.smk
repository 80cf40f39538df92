# Every run on every benchmark, all benchmarks of a run in one job.


rule evaluate:
    input:
        order("evaluate", "waits"),
    output:
        touch(f"{ROOT}/jobs/evaluate/{{job}}.done"),
    log:
        f"{ROOT}/logs/evaluate/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/evaluate/{{job}}.benchmark.tsv"
    priority: soon("evaluate")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=memory("evaluate"),
        runtime=minutes("evaluate", "evaluate", 720),
        gpu=gpus,
    params:
        title=order("evaluate", "title"),
        results=order("evaluate", "results"),
        trained=each_result("evaluate", lambda result: GRID.all_methods[result["run"]["method"]].trains),
        benchmarks=CONFIG["benchmarks"],
        benchmarks_file=CONFIG["benchmarks_file"],
        benchmarks_data=GRID.benchmarks_data,
        heldout=lambda w: str(GRID.heldout_rows) if GRID.heldout_rows else None,
        evaluation=GRID.evaluation,
        device=CONFIG["device"],
    message:
        "evaluate {params.title}"
    script:
        "../scripts/evaluate.py"
