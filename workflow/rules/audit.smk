# Every method's scores on one full-data training run a model: `make audit`.  Not part of the grid.


AUDIT_NAME = JOBS.audit(
    [audit_entries(GRID, model) for model in GRID.models], GRID.training_section, CONFIG["seeds"][0]
)


rule audit_model:
    input:
        lambda w: JOBS.audit_waits(w.model),
    output:
        touch(f"{ROOT}/jobs/audit/{{model}}.{AUDIT_NAME}.done"),
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
    threads: 1 if CONFIG["runs_in_one_job"] > 1 else 2
    resources:
        mem_mb=lambda w: host_memory(GRID.models[w.model].size),
        runtime=720,
        gpu=gpus,
    params:
        entries=lambda w: audit_entries(GRID, w.model),
        inputs=lambda w: audit_inputs(GRID, w.model),
        losses=lambda w: {signal: str(path) for signal, path in audit_losses(GRID, w.model).items()},
        training=GRID.training_section,
        seed=CONFIG["seeds"][0],
        device=CONFIG["device"],
    message:
        "audit {wildcards.model}"
    script:
        "../scripts/audit.py"


rule audit:
    input:
        ancient([f"{ROOT}/jobs/audit/{model}.{AUDIT_NAME}.done" for model in GRID.models]),
        records=ancient([f"{ROOT}/audit/{model}/audit.json" for model in GRID.models]),
        text=ancient([f"{ROOT}/audit/{model}/audit.txt" for model in GRID.models]),
    output:
        touch(f"{ROOT}/jobs/audit/page.{AUDIT_NAME}.done"),
        table=f"{ROOT}/audit/audit.csv",
        page=f"{ROOT}/audit/index.html",
    log:
        f"{ROOT}/logs/audit/audit.log",
    benchmark:
        f"{ROOT}/logs/audit/audit.benchmark.tsv"
    localrule: True
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "write the audit's table and page"
    script:
        "../scripts/audit_page.py"
