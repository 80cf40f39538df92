# What each job is told, and what the workflow says before its first and after its last.
# What is to be made, and in which jobs. A job's own process reads its order from the file that the workflow wrote.
JOBS = Jobs(GRID, plan=workflow.is_main_process)
if workflow.is_main_process:
    JOBS.forget()
# nor do Snakemake's own records of code, parameters and sets of inputs say what is to be made
type(workflow).rerun_triggers = property(lambda _: frozenset({RerunTrigger.SOFTWARE_ENV}))


def say(line):
    if line:
        print(line, file=sys.stderr, flush=True)


def order(rule, key=None):
    """Of a rule's job: what it waits for, what it makes, for which model."""
    return lambda wildcards: JOBS.order(rule, wildcards.job)[key]


def each_result(rule, tell):
    """Of a rule's job: what it must be told of each result, in order."""
    return lambda wildcards: [tell(result) for result in JOBS.order(rule, wildcards.job)["results"]]


# The report of these results, by this code: a rule of the report is done where its stamp of this name lies
REPORT_NAME = JOBS.report(facts_of(GRID), table_options(GRID), CONFIG["benchmarks_file"], CONFIG["models_file"])


def start():
    """What the workflow does before its first job."""
    say(remember(CONFIG, GRID.root))
    JOBS.write(REPORT_NAME)
    workflow.dag.priorityfiles |= set(JOBS.first())  # the first model's main table before the others
    workflow.dag.update_priority()
    Progress(GRID.progress()).watch(say)


def stamp(rule):
    """What a rule of the report leaves when it is done, beside its outputs."""
    return JOBS.done("report", f"{rule}.{REPORT_NAME}")


def finish():
    for name in ("main", "selection"):
        if (table := Path(ROOT, f"report/tables/{name}.md")).exists():
            print(f"{table}\n\n{table.read_text()}")
    print(f"The page with all tables and figures: {ROOT}/report/index.html")
