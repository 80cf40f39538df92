"""From the jobs' records to tidy scores and tables.  Scores stay runs x questions until here."""
