from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.status import refuse_stale, status, write_status
from sstoken.jobs import logged
from sstoken.records.documents import located
from sstoken.report.collect import collect
from sstoken.report.selection_scores import write_selection
from sstoken.report.tables import write_tables

with logged(snakemake.log[0]):
    params, outputs = snakemake.params, snakemake.output
    states = status(grid := Grid(params.config))
    write_status(states, Path(outputs.status), grid.root)
    refuse_stale(states)
    collect(
        params.evaluations, params.records, scores=outputs.scores, samples=outputs.samples, costs=outputs.cost_records
    )
    if params.selections:
        write_selection(params.selections, outputs.selection)
    write_tables(
        Path(outputs.samples),
        Path(outputs.cost_records),
        located(params.config["benchmarks_file"]),
        Path(outputs.main).parent,
        selection=Path(outputs.selection) if params.selections else None,
        **params.options,
    )
