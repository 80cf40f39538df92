from sstoken.jobs import logged
from sstoken.report.collect import collect

with logged(snakemake.log[0]):
    inputs, outputs = snakemake.input, snakemake.output
    collect(inputs.evaluations, inputs.records, scores=outputs.scores, samples=outputs.samples, costs=outputs.costs)
