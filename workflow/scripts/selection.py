from sstoken.jobs import logged
from sstoken.report.selection_scores import write_selection

with logged(snakemake.log[0]):
    write_selection(snakemake.params.runs, snakemake.output.selection)
