from pathlib import Path

from sstoken.jobs import logged
from sstoken.report.figures import draw_figures
from sstoken.report.results import Facts, Results

with logged(snakemake.log[0]):
    folder = Path(snakemake.output.figures)  # {root}/report/figures
    draw_figures(Results(folder.parents[1], Facts(**snakemake.params.facts)), folder, processes=snakemake.threads)
