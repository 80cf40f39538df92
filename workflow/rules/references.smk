# Per-token losses of frozen models: once for each (weights, data), shared by every run that asks.


rule losses:
    input:
        order("losses", "waits"),
    output:
        touch(f"{ROOT}/jobs/losses/{{job}}.done"),
    log:
        f"{ROOT}/logs/losses/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/losses/{{job}}.benchmark.tsv"
    priority: soon("losses")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=memory("losses"),
        runtime=minutes("losses", "references", 240),
        gpu=gpus,
    params:
        title=order("losses", "title"),
        model=order("losses", "model"),
        folder=lambda w: str(GRID.model_record(order("losses", "model")(w)).parent),
        asked=losses_asked(),
        settings=CONFIG["references"],
        device=CONFIG["device"],
    message:
        "losses of {params.title}"
    script:
        "../scripts/losses.py"
