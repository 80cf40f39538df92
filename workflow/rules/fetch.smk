# What comes from the hub.  These rules alone use the network, so they run where the workflow was started (a login node);
# `make fetch` runs them and no other.
localrules:
    fetch_model,
    fetch_rows,
    fetch_benchmarks,


use rule model as fetch_model with:
    wildcard_constraints:
        model=any_of(GRID.hub.models),


rule fetch_rows:
    output:
        rows=f"{ROOT}/data/hub/{{rows}}.jsonl",
        record=f"{ROOT}/data/hub/{{rows}}.json",
    log:
        f"{ROOT}/logs/fetch/{{rows}}.log",
    benchmark:
        f"{ROOT}/logs/fetch/{{rows}}.benchmark.tsv"
    wildcard_constraints:
        rows=any_of(GRID.hub.rows),
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        source=lambda w: GRID.hub.rows[w.rows],
        lock=GRID.hub.lock,
    message:
        "fetch {wildcards.rows}"
    script:
        "../scripts/fetch_rows.py"


rule fetch_benchmarks:
    output:
        [f"{ROOT}/data/benchmarks/{name}.json" for name in CONFIG["benchmarks"]],
    log:
        f"{ROOT}/logs/fetch/benchmarks.log",
    benchmark:
        f"{ROOT}/logs/fetch/benchmarks.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        benchmarks=CONFIG["benchmarks"],
        benchmarks_file=CONFIG["benchmarks_file"],
        datasets_file=CONFIG["datasets_file"],
        lock=GRID.hub.lock,
    message:
        "fetch the benchmarks' rows"
    script:
        "../scripts/fetch_benchmarks.py"
