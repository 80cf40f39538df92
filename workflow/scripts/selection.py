from sstoken.jobs import logged
from sstoken.records.damage import hold
from sstoken.report.selection_scores import write_selection

with logged(snakemake.log[0]):
    write_selection(snakemake.params.runs, snakemake.output.selection)
    hold(snakemake.output[0], snakemake.output)
