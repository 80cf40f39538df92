# What comes from the hub.  These rules alone use the network, so they run where the workflow was started (a login node);
# `make fetch` runs them and no other.
localrules:
    fetch_model,
    fetch_rows,
    fetch_benchmarks,


rule fetch_model:
    input:
        order("fetch_model", "waits"),
    output:
        touch(f"{ROOT}/jobs/fetch_model/{{job}}.done"),
    log:
        f"{ROOT}/logs/fetch_model/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/fetch_model/{{job}}.benchmark.tsv"
    priority: soon("fetch_model")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        title=order("fetch_model", "title"),
        results=order("fetch_model", "results"),
        entry=lambda w: asdict(GRID.models[order("fetch_model", "model")(w)]),
        bases=None,
    message:
        "fetch {params.title}"
    script:
        "../scripts/model.py"


rule fetch_rows:
    input:
        order("fetch_rows", "waits"),
    output:
        touch(f"{ROOT}/jobs/fetch_rows/{{job}}.done"),
    log:
        f"{ROOT}/logs/fetch_rows/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/fetch_rows/{{job}}.benchmark.tsv"
    priority: soon("fetch_rows")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        title=order("fetch_rows", "title"),
        results=order("fetch_rows", "results"),
        source=lambda w: GRID.hub.rows[order("fetch_rows", "results")(w)[0]["key"][0]],
        lock=GRID.hub.lock,
    message:
        "fetch {params.title}"
    script:
        "../scripts/fetch_rows.py"


rule fetch_benchmarks:
    input:
        order("fetch_benchmarks", "waits"),
    output:
        touch(f"{ROOT}/jobs/fetch_benchmarks/{{job}}.done"),
    log:
        f"{ROOT}/logs/fetch_benchmarks/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/fetch_benchmarks/{{job}}.benchmark.tsv"
    priority: soon("fetch_benchmarks")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        results=order("fetch_benchmarks", "results"),
        benchmarks_file=CONFIG["benchmarks_file"],
        datasets_file=CONFIG["datasets_file"],
        lock=GRID.hub.lock,
    message:
        "fetch the benchmarks' rows"
    script:
        "../scripts/fetch_benchmarks.py"
