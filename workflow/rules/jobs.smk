# Which jobs there are, what each is told, and what the workflow does before the first of them.
from contextlib import ExitStack

from snakemake.settings.enums import RerunTrigger

from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.progress import Progress
from sstoken.records.files import sha256_file
from sstoken.records.locks import Held, locked

# What is to be made, and in which jobs. A job's own process reads its order from the file that the workflow wrote.
JOBS = Jobs(GRID, plan=workflow.is_main_process)
if workflow.is_main_process:
    JOBS.forget()
# nor do Snakemake's own records of code, parameters and sets of inputs say what is to be made
type(workflow).rerun_triggers = property(lambda _: frozenset({RerunTrigger.SOFTWARE_ENV}))


def order(rule, key=None):
    """Of a rule's job: what it waits for, what it makes, for which model."""
    return lambda wildcards: JOBS.order(rule, wildcards.job)[key]


def each_result(rule, tell):
    """Of a rule's job: what it must be told of each result, in order."""
    return lambda wildcards: [tell(result) for result in JOBS.order(rule, wildcards.job)["results"]]


# The report of these results, by this code: a rule of the report is done where its stamp of this name lies
REPORT_NAME = JOBS.report(facts_of(GRID), table_options(GRID), CONFIG, sha256_file(located(CONFIG["benchmarks_file"])))
HELD = ExitStack()


def start():
    """What the workflow does before its first job. Its lock, one an experiment, is let go of by its death."""
    try:
        HELD.enter_context(locked(GRID.root / ".lock", wait=False))
    except Held as error:
        raise WorkflowError(f"{error}: experiment {CONFIG['experiment']} is running already") from None
    if line := remember(CONFIG, GRID.root):
        print(line, file=sys.stderr, flush=True)
    JOBS.write(REPORT_NAME, AUDIT_NAME)
    workflow.dag.priorityfiles |= set(JOBS.first())  # the first model's main table before the others
    workflow.dag.update_priority()
    progress = Progress(GRID.progress(), JOBS.wanted(), {model: GRID.main_table(model) for model in GRID.models})
    progress.watch(lambda line: print(line, file=sys.stderr, flush=True))


def stamp(rule):
    """What a rule of the report leaves when it is done, beside its outputs."""
    return JOBS.done("report", f"{rule}.{REPORT_NAME}")
