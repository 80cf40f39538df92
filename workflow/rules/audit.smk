# Every method's scores on one full-data training run a model: `make audit`.  Not part of the grid.
import json

AUDITS = Path(ROOT, "jobs", "audit")
if workflow.is_main_process:
    write_audits(GRID, JOBS, AUDITS)
AUDIT_NAMES = json.loads((AUDITS / "names.json").read_text())


def audit_of(key):
    return lambda wildcards: json.loads((AUDITS / f"{wildcards.audit}.json").read_text())[key]


rule audit_model:
    input:
        audit_of("waits"),
    output:
        touch(f"{ROOT}/jobs/audit/{{audit}}.done"),
    log:
        f"{ROOT}/logs/audit/{{audit}}.log",
    benchmark:
        f"{ROOT}/logs/audit/{{audit}}.benchmark.tsv"
    wildcard_constraints:
        audit="(?!table[.]).+",
    conda:
        "../envs/sstoken.yaml"
    threads: 1 if CONFIG["runs_in_one_job"] > 1 else workflow.cores
    resources:
        mem_mb=lambda w: host_memory(GRID.models[audit_of("model")(w)].size),
        runtime=720,
        gpu=gpus,
    params:
        order=audit_of("order"),
        model=audit_of("model"),
        out=lambda w: f"{ROOT}/audit/{audit_of('model')(w)}",
        device=CONFIG["device"],
    message:
        "audit {params.model}"
    script:
        "../scripts/audit.py"


rule audit:
    input:
        [f"{ROOT}/jobs/audit/{name}.done" for name in AUDIT_NAMES],
    output:
        touch(f"{ROOT}/jobs/audit/table.{'-'.join(name.rsplit('.')[-1][:6] for name in AUDIT_NAMES)}.done"),
    log:
        f"{ROOT}/logs/audit/table.log",
    localrule: True
    params:
        folders=[f"{ROOT}/audit/{model}" for model in GRID.models],
    message:
        "write the audit's table and page"
    script:
        "../scripts/audit_page.py"
