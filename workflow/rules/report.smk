# Tidy scores and costs, and the tables.
TABLES = ["main", "differences", "pooled", "recovered", "costs", "published", "deviations"]  # also as .md and .tex
DATA = ["averages", "axes", "leads", "mcnemar", "ablations", "missing"]
TRUTH = ["selection"] if GRID.noisy_runs() else []


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


rule tables:
    input:
        samples=f"{ROOT}/samples.parquet",
        costs=f"{ROOT}/costs.csv",
        benchmarks=str(located(CONFIG["benchmarks_file"])),
        selection=[f"{ROOT}/{name}.csv" for name in TRUTH],
    output:
        **{name: f"{ROOT}/report/tables/{name}.csv" for name in TABLES + DATA},
        text=[f"{ROOT}/report/tables/{name}.{kind}" for name in TABLES + TRUTH for kind in ("md", "tex")],
    log:
        f"{ROOT}/logs/tables.log",
    benchmark:
        f"{ROOT}/logs/tables.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        **table_options(GRID),
    message:
        "tables with intervals and tests"
    script:
        "../scripts/tables.py"
