from sstoken.jobs import logged
from sstoken.report.page import render_page
from sstoken.report.results import Facts, Results

with logged(snakemake.log[0]):
    results = Results(snakemake.params.root, Facts(**snakemake.params.facts))
    render_page(results, snakemake.output[0], config=snakemake.params.config)
