from pathlib import Path

from sstoken.jobs import logged
from sstoken.report.figures import draw_figures
from sstoken.report.page import render_page
from sstoken.report.results import Facts, Results

with logged(snakemake.log[0]):
    page = Path(snakemake.output.page)  # {root}/report/index.html
    results = Results(page.parents[1], Facts(**snakemake.params.facts))
    draw_figures(results, Path(snakemake.output.figures), processes=snakemake.threads)
    render_page(results, page, config=snakemake.params.config)
