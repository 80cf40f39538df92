# Every method's scores on one full-data training run a model: `make audit`.  Not part of the grid.


rule audit_model:
    input:
        unpack(lambda w: audit_inputs(GRID, w.model)),
    output:
        record=f"{ROOT}/audit/{{model}}/audit.json",
        scores=f"{ROOT}/audit/{{model}}/scores.csv",
        text=f"{ROOT}/audit/{{model}}/audit.txt",
        page=f"{ROOT}/audit/{{model}}/index.html",
    log:
        f"{ROOT}/logs/audit/{{model}}.log",
    benchmark:
        f"{ROOT}/logs/audit/{{model}}.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1 if CONFIG["runs_in_one_job"] > 1 else workflow.cores
    resources:
        mem_mb=memory,
        runtime=720,
        gpu=gpus,
    params:
        entries=lambda w: audit_entries(GRID, w.model),
        losses=lambda w: {
            signal: str(GRID.losses(w.model, "train", label)) for signal, label in audit_labels(GRID, w.model).items()
        },
        training=CONFIG["training"],
        seed=CONFIG["seeds"][0],
        device=CONFIG["device"],
    message:
        "audit {wildcards.model}"
    script:
        "../scripts/audit.py"


rule audit:
    input:
        records=[f"{ROOT}/audit/{model}/audit.json" for model in GRID.models],
        text=[f"{ROOT}/audit/{model}/audit.txt" for model in GRID.models],
    output:
        f"{ROOT}/audit/audit.csv",
        f"{ROOT}/audit/index.html",
    log:
        f"{ROOT}/logs/audit/audit.log",
    localrule: True
    conda:
        "../envs/sstoken.yaml"
    message:
        "write the audit's table and page"
    script:
        "../scripts/audit_page.py"
