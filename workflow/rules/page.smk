# The papers' figures, and the page that shows all that the run has to say.
import atexit

REPORT_TABLES = expand(
    f"{ROOT}/report/tables/{{name}}.csv",
    name=["averages", "axes", "differences", "pooled", "recovered", "ablations", "costs", "missing"],
)
REPORT_SELECTION = [f"{ROOT}/selection.csv"] if GRID.noisy_runs() else []

FACTS = facts_of(GRID)
# all that is to be done: results, and the report on them
STAMPS = JOBS.all_done() + [stamp(rule) for rule in ["collect", "tables", "figures", "page"] + TRUTH]


rule figures:
    input:
        stamp("tables"),
        tables=ancient(REPORT_TABLES),
        selection=ancient(REPORT_SELECTION),
    output:
        touch(stamp("figures")),
        figures=report(
            directory(f"{ROOT}/report/figures"),
            patterns=["{name}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        f"{ROOT}/logs/figures.log",
    benchmark:
        f"{ROOT}/logs/figures.benchmark.tsv"
    conda:
        "../envs/sstoken.yaml"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        facts=FACTS,
    message:
        "draw the figures"
    script:
        "../scripts/figures.py"


rule page:
    input:
        stamp("figures"),
        tables=ancient(REPORT_TABLES),
        selection=ancient(REPORT_SELECTION),
        figures=ancient(f"{ROOT}/report/figures"),
    output:
        touch(stamp("page")),
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
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        facts=FACTS,
        config=CONFIG,
    message:
        "write the page"
    script:
        "../scripts/page.py"


# Snakemake calls no hook where there is nothing to be done
if workflow.is_main_process and not JOBS.all_done() and all(Path(file).exists() for file in STAMPS + REPORT):
    atexit.register(show)
