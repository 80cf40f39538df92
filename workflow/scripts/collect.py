from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.status import refuse_stale, status, write_status
from sstoken.jobs import logged
from sstoken.report.collect import collect

with logged(snakemake.log[0]):
    params, outputs = snakemake.params, snakemake.output
    states = status(grid := Grid(params.config))
    write_status(states, Path(outputs.status), grid.root)
    refuse_stale(states)
    collect(params.evaluations, params.records, scores=outputs.scores, samples=outputs.samples, costs=outputs.costs)
