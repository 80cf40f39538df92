# Training runs; a self-evolving method is a chain of runs, one a part of the data.


rule train:
    input:
        order("train", "waits"),
        fetched_first,
    output:
        touch(f"{ROOT}/jobs/train/{{job}}.done"),
    log:
        f"{ROOT}/logs/train/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/train/{{job}}.benchmark.tsv"
    priority: soon("train")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=memory("train"),
        runtime=minutes("train", "train", 720),
        gpu=gpus_of_run,
    params:
        title=order("train", "title"),
        results=order("train", "results"),
        runs=each_result("train", lambda result: GRID.order(Run(**result["run"]))),
        references=CONFIG["references"],
        device=CONFIG["device"],
    message:
        "train {params.title}"
    script:
        "../scripts/train.py"
