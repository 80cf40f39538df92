"""From the jobs' records to tidy scores and tables.  Scores stay runs x questions until here.

``show_run`` and ``compare`` are for those who look into finished runs.
"""

__all__ = ["compare", "show_run"]


def __getattr__(name: str):
    # lazily: the workflow imports this package for names alone, and must not wait for scipy
    if name == "show_run":
        from sstoken.report.show import show_run

        return show_run
    if name == "compare":
        from sstoken.report.comparison import compare

        return compare
    raise AttributeError(f"module 'sstoken.report' has no attribute {name!r}")
