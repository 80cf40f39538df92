from sstoken.jobs import logged
from sstoken.report.figures import draw_figures
from sstoken.report.results import Facts, Results

with logged(snakemake.log[0]):
    draw_figures(Results(snakemake.params.root, Facts(**snakemake.params.facts)), snakemake.output[0])
