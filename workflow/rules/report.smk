# Tidy scores and costs, and the tables.
TABLES = [
    "main",
    "differences",
    "pooled",
    "recovered",
    "costs",
    "claims",
    "published",
    "deviations",
]  # also as .md and .tex
TABLES += ["heldout"] if "heldout" in CONFIG["benchmarks"] else []
TABLES += ["safety"] if GRID.refusal_benchmarks else []
DATA = ["averages", "axes", "leads", "mcnemar", "ablations", "missing"]
TRUTH = ["selection"] if GRID.noisy_runs() else []
VALUES = [f"ablation-{ablation.name}" for ablation in GRID.ablations]


rule collect:
    input:
        JOBS.all_done(),
    output:
        touch(stamp("collect")),
        scores=f"{ROOT}/scores.csv",
        samples=f"{ROOT}/samples.parquet",
        costs=f"{ROOT}/costs.csv",
        status=f"{ROOT}/status.csv",
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
    params:
        config=CONFIG,
        evaluations=[str(path) for path in GRID.evaluations()],
        records=[str(path) for path in GRID.cost_records()],
    message:
        "collect scores, samples and costs"
    script:
        "../scripts/collect.py"


rule tables:
    input:
        stamp("collect"),
        samples=ancient(f"{ROOT}/samples.parquet"),
        costs=ancient(f"{ROOT}/costs.csv"),
        benchmarks=ancient(str(located(CONFIG["benchmarks_file"]))),
        selection=[ancient(f"{ROOT}/{name}.csv") for name in TRUTH],
    output:
        touch(stamp("tables")),
        **{name: f"{ROOT}/report/tables/{name}.csv" for name in TABLES + DATA},
        text=[f"{ROOT}/report/tables/{name}.{kind}" for name in TABLES + TRUTH + VALUES for kind in ("md", "tex")],
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
