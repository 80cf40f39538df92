from pathlib import Path

from sstoken.jobs import logged
from sstoken.jobs.audit import gather

with logged(snakemake.log[0]):
    folders = [Path(folder) for folder in snakemake.params.folders]
    gather(folders, folders[0].parent)
