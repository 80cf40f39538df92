from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.audit import gather

with logged(snakemake.log[0]):
    gather([Path(record).parent for record in snakemake.input.records], Path(snakemake.output.table).parent)
