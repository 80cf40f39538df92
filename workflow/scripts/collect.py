from sstoken.jobs import logged
from sstoken.report.collect import collect

with logged(snakemake.log[0]):
    params, outputs = snakemake.params, snakemake.output
    collect(params.evaluations, params.records, scores=outputs.scores, samples=outputs.samples, costs=outputs.costs)
