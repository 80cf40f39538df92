# The report, drawn from the records: tables, then figures and the page. Two processes, each of which would start for seconds.
import atexit

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
TRUTH = ["selection"] if GRID.noisy_runs() else []  # scores and masks against the planted truth, where data carries it
VALUES = [f"ablation-{ablation.name}" for ablation in GRID.ablations]
# all that is to be done: results, and the report on them
STAMPS = JOBS.all_done() + [stamp(rule) for rule in ("tables", "page")]


rule tables:
    input:
        JOBS.all_done(),
    output:
        touch(stamp("tables")),
        **{name: f"{ROOT}/report/tables/{name}.csv" for name in TABLES + DATA},
        **{name: f"{ROOT}/{name}.csv" for name in TRUTH},
        text=[f"{ROOT}/report/tables/{name}.{kind}" for name in TABLES + TRUTH + VALUES for kind in ("md", "tex")],
        scores=f"{ROOT}/scores.csv",
        samples=f"{ROOT}/samples.parquet",
        cost_records=f"{ROOT}/costs.csv",
        status=f"{ROOT}/status.csv",
    log:
        f"{ROOT}/logs/tables.log",
    benchmark:
        f"{ROOT}/logs/tables.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=CONFIG,
        evaluations=[str(path) for path in GRID.evaluations()],
        records=[str(path) for path in GRID.cost_records()],
        selections=[GRID.selection_source(run) for run in GRID.noisy_runs()],
        options=table_options(GRID),
    message:
        "collect what was measured; tables with intervals and tests"
    script:
        "../scripts/tables.py"


rule page:
    input:
        ancient(stamp("tables")),  # a stamp's name says what it is of, its time nothing
    output:
        touch(stamp("page")),
        figures=report(
            directory(f"{ROOT}/report/figures"),
            patterns=["{name}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
        page=report(
            f"{ROOT}/report/index.html",
            caption="../report/page.rst",
            category="Summary",
            labels={"item": "everything on one page"},
        ),
    log:
        f"{ROOT}/logs/page.log",
    benchmark:
        f"{ROOT}/logs/page.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        facts=facts_of(GRID),
        config=CONFIG,
    message:
        "draw the figures, write the page"
    script:
        "../scripts/page.py"


# Snakemake calls no hook where there is nothing to be done
if workflow.is_main_process and not JOBS.all_done() and all(Path(file).exists() for file in STAMPS + REPORT):
    atexit.register(show)
