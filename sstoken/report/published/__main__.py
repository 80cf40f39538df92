"""Print docs/deviations.md."""

from sstoken.report.published import deviations_page

print(deviations_page(), end="")
