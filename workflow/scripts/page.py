from pathlib import Path

from sstoken.jobs import logged
from sstoken.report.page import render_page
from sstoken.report.results import Facts, Results

with logged(snakemake.log[0]):
    page = Path(snakemake.output.page)  # {root}/report/index.html
    results = Results(page.parents[1], Facts(**snakemake.params.facts))
    render_page(results, page, config=snakemake.params.config)
