# Per-token losses of frozen models: once for each (weights, data), shared by every run that asks.


def losses_asked(rule="losses"):
    """(label, the run's folder or None, the tokens, the file, its ticket) of each result of a job."""

    def function(wildcards):
        model = order(rule, "model")(wildcards)
        asked = []
        for result in order(rule, "results")(wildcards):
            dataset, draw, label = result["key"]
            run = GRID.run_of(model, label)
            folder = str(GRID.run_record(run).parent) if run else None
            files = GRID.tokens(model, dataset, draw), Path(result["record"]).with_suffix(".safetensors")
            asked.append((label, folder, *map(str, files), result["ticket"]))
        return asked

    return function


rule losses:
    input:
        order("losses", "waits"),
    output:
        touch(f"{ROOT}/jobs/losses/{{job}}.done"),
    log:
        f"{ROOT}/logs/losses/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/losses/{{job}}.benchmark.tsv"
    priority: EARLY
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
