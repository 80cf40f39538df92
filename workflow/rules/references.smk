# Per-token losses of frozen models: once for each (weights, data), shared by every run that asks.


rule losses:
    input:
        model=f"{ROOT}/models/{{model}}/model.json",
        tokens=f"{ROOT}/tokens/{{model}}/{{dataset}}.safetensors",
        run=lambda w: names(GRID.label_inputs(w.model, w.label)),
    output:
        losses=f"{ROOT}/references/{{model}}/{{dataset}}/{{label}}.safetensors",
        record=f"{ROOT}/references/{{model}}/{{dataset}}/{{label}}.json",
    log:
        f"{ROOT}/logs/losses/{{model}}.{{dataset}}.{{label}}.log",
    benchmark:
        f"{ROOT}/logs/losses/{{model}}.{{dataset}}.{{label}}.benchmark.tsv"
    priority: EARLY
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=lambda w, attempt: attempt * runtime(GRID, "references", w.model, [], 240),
        gpu=gpus,
    params:
        settings=CONFIG["references"],
        device=CONFIG["device"],
    message:
        "losses of {wildcards.label} on {wildcards.dataset}, {wildcards.model}"
    script:
        "../scripts/losses.py"
