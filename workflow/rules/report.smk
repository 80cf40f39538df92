# Tidy scores, costs and the table.


rule collect:
    input:
        evaluations=names(GRID.evaluations()),
        records=names(GRID.cost_records()),
    output:
        scores=f"{ROOT}/scores.csv",
        samples=f"{ROOT}/samples.parquet",
        costs=f"{ROOT}/costs.csv",
    log:
        f"{ROOT}/logs/collect.log",
    benchmark:
        f"{ROOT}/logs/collect.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    message:
        "collect scores, samples and costs"
    script:
        "../scripts/collect.py"


rule table:
    input:
        scores=f"{ROOT}/scores.csv",
        benchmarks=CONFIG["benchmarks_file"],
    output:
        csv=f"{ROOT}/report/tables/main.csv",
        md=f"{ROOT}/report/tables/main.md",
    log:
        f"{ROOT}/logs/table.log",
    benchmark:
        f"{ROOT}/logs/table.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        models=list(GRID.models),
        methods=list(GRID.methods),
        benchmarks=CONFIG["benchmarks"],
    script:
        "../scripts/table.py"
