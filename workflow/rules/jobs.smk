# Which jobs there are, what each is told, and what the workflow does before the first of them.
from contextlib import ExitStack

from snakemake.settings.enums import RerunTrigger

from sstoken.experiment.asked_to_end import end_when_asked
from sstoken.experiment.failures import Failures
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.layout import HELD_OUT
from sstoken.experiment.progress import Progress
from sstoken.experiment.redraw import Redraw
from sstoken.experiment.settled import Settled, settle_for
from sstoken.records.files import sha256_file
from sstoken.records.locks import Held, locked
from sstoken.records.terminal import styled

# What is to be made, and in which jobs. A job's own process reads its order from the file that the workflow wrote.
JOBS = Jobs(GRID, plan=workflow.is_main_process)
# Snakemake's own records of code, parameters and sets of inputs do not say what is to be made. What a killed job had begun is
# made again. Of Snakemake's lock a kill leaves something, to be undone by hand: an experiment has a lock of its own.
settle_for(
    type(workflow),
    dag_settings=Settled(rerun_triggers=frozenset({RerunTrigger.SOFTWARE_ENV}), force_incomplete=True),
    execution_settings=Settled(lock=False),
)


if not workflow.is_main_process and (changed := JOBS.changed_since_the_start()):
    raise WorkflowError(f"{', '.join(changed)}: changed after this workflow had started; start it again")


def order(rule, key=None):
    """Of a rule's job: what it waits for, what it makes, for which model."""
    return lambda wildcards: JOBS.order(rule, wildcards.job)[key]


def fetched_first(wildcards):
    """A gated model, or a hub that does not answer, is known before the hours of training. An audit asks no benchmarks."""
    return [] if "audit" in workflow.dag_settings.targets else JOBS.fetched()


def soon(rule):
    """Of a rule's job: its priority."""
    return lambda wildcards: JOBS.priority(rule, wildcards.job)


def each_result(rule, tell):
    """Of a rule's job: what it must be told of each result, in order."""
    return lambda wildcards: [tell(result) for result in JOBS.order(rule, wildcards.job)["results"]]


# The report of these results, by this code: a rule of the report is done where its stamp of this name lies
REPORT_NAME = JOBS.report(facts_of(GRID), table_options(GRID), CONFIG, sha256_file(located(CONFIG["benchmarks_file"])))
if workflow.is_main_process:
    JOBS.forget(REPORT_NAME)


def say(line, style="bold"):
    """Of one or more lines the first stands out, where the terminal can show it."""
    print(styled(line, style if "\n" in line else "plain", sys.stderr), file=sys.stderr, flush=True)


HELD = ExitStack()
SO_FAR = Redraw(GRID.root, say)
FAILURES = Failures(here=not workflow.non_local_exec)
MADE_ANEW = {}


def start():
    """What the workflow does before its first job. Its lock, one an experiment, is let go of by its death."""
    try:
        HELD.enter_context(locked(GRID.root / ".lock", wait=False))
    except Held as error:
        raise WorkflowError(f"{error}: experiment {CONFIG['experiment']} is running already") from None
    if settings := remember(CONFIG, GRID.root):
        print(settings, file=sys.stderr, flush=True)
    end_when_asked(say)
    JOBS.write(REPORT_NAME, AUDIT_NAME)
    MADE_ANEW.update(made_anew())
    for kind, name in MADE_ANEW.items():
        JOBS.replace(kind, name)
    FAILURES.watch(to_run())
    Progress.of(GRID, JOBS.wanted()).watch(say, then=SO_FAR)


def to_run():
    """(title, log, what it leaves, MB of memory) of each job that is to run."""
    for job in workflow.dag.needrun_jobs():
        if job.log:
            known = JOBS.jobs.get((job.rule.name, job.wildcards_dict.get("job")))
            title = f"{job.rule.name} {known.title}" if known else job.rule.name
            yield title, Path(job.log[0]), Path(job.output[0]), (
                asked if isinstance(asked := job.resources.get("mem_mb"), int) else 0
            )


def made_anew():
    """Kind -> name, of the report and the audit where a rule of theirs is to run."""
    rules_to_run = {job.rule.name for job in workflow.dag.needrun_jobs()}
    rules = {
        "report": ({"tables", "page"}, REPORT_NAME),
        "audit": ({"audit_model", "audit"}, AUDIT_NAME),
    }
    return {kind: name for kind, (own, name) in rules.items() if rules_to_run & own}


def stamp(rule):
    """What a rule of the report leaves when it is done, beside its outputs."""
    return JOBS.done("report", f"{rule}.{REPORT_NAME}")


def tokens_asked(result):
    """(data set, its sections, the file, its ticket)."""
    dataset, draw = result["key"]
    file = str(Path(result["record"]).with_suffix(".safetensors"))
    return dataset, GRID.sections(dataset, draw), file, result["ticket"]


def losses_asked(rule="losses"):
    """(label, the run's folder or None, the tokens, the file, its ticket) of each result of a job."""

    def function(wildcards):
        model = order(rule, "model")(wildcards)
        asked = []
        for result in order(rule, "results")(wildcards):
            dataset, draw, label = result["key"]
            run = GRID.run_of(model, label)
            folder = str(GRID.run_record(run).parent) if run else None
            files = GRID.tokens(model, dataset, draw), Path(result["record"]).with_suffix(".safetensors")
            asked.append((label, folder, *map(str, files), result["ticket"]))
        return asked

    return function


def failed():
    """What the workflow does last where a job has failed."""
    SO_FAR.failed()
    if lines := FAILURES.lines():
        say("\n".join(lines), "red")


def sealed():
    """What the workflow does when all is done."""
    SO_FAR.finished()
    for kind in MADE_ANEW:
        JOBS.seal(kind)


def show():
    """The tables, and where the page lies; an audit's are shown by its command."""
    if workflow.dag is None or "audit" in {job.rule.name for job in workflow.dag.jobs}:
        return
    heldout = ["heldout"] if HELD_OUT in CONFIG["benchmarks"] else []
    main = [] if CONFIG["benchmarks"] == [HELD_OUT] else ["main"]  # an average of nothing, in percent of what is none
    for name in (*main, *heldout, "selection"):
        if (table := Path(ROOT, f"report/tables/{name}.md")).exists():
            print(f"{table}\n\n{table.read_text()}")
    if "full" in GRID.methods:
        print(f"Each method minus full-data training, with intervals and tests: {ROOT}/report/tables/differences.md")
    print(f"The page with all tables and figures: {ROOT}/report/index.html")
