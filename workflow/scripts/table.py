from sstoken.jobs import logged
from sstoken.report import write_main_table

with logged(snakemake.log[0]):
    write_main_table(
        snakemake.input.scores,
        snakemake.input.benchmarks,
        models=snakemake.params.models,
        methods=snakemake.params.methods,
        benchmarks=snakemake.params.benchmarks,
        csv=snakemake.output.csv,
        markdown=snakemake.output.md,
    )
