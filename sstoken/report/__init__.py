"""From the jobs' records to tidy scores and tables.  Scores stay runs x questions until here."""

from sstoken.report.collect import collect
from sstoken.report.render import write_tables

__all__ = ["collect", "write_tables"]
