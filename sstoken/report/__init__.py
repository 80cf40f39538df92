"""From the jobs' records to tidy scores and tables.  Scores stay runs x benchmarks until here."""

from sstoken.report.collect import collect
from sstoken.report.table import main_table, write_main_table

__all__ = ["collect", "main_table", "write_main_table"]
