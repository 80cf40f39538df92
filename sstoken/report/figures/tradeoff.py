"""ssToken's Figure 2: average score against total training time, the reference model's training counted in."""

from __future__ import annotations

from sstoken.report.figures.style import INK, QUIET, Drawn, LeftOut, Look, legend_below, panels, whiskers
from sstoken.report.numbers import row_estimate
from sstoken.report.results import Results

TITLE = "Average score against training time"


def draw(results: Results) -> list[Drawn | LeftOut]:
    facts, look = results.facts, Look(results.facts)
    found = {
        model: [
            (method, results.average(model, method), results.cost(model, method))
            for method in facts.methods
            if method not in facts.untrained
            and results.average(model, method) is not None
            and results.cost(model, method) is not None
        ]
        for model in facts.models
    }
    found = {model: rows for model, rows in found.items() if rows}
    if not found:
        return [LeftOut("tradeoff", TITLE, "no method has both its scores and its costs")]
    longest = max(c["training_seconds"] + c["reference_seconds"] for rows in found.values() for _, _, c in rows)
    unit, size = ("s", 1) if longest < 600 else ("min", 60) if longest < 3 * 3600 else ("h", 3600)
    figure, axes = panels(len(found), height=2.6 if len(found) < 3 else 2.0)
    words = []
    for axis, (model, rows) in zip(axes, found.items(), strict=True):
        for method, average, cost in rows:
            alone = cost["training_seconds"] / size
            total = alone + cost["reference_seconds"] / size
            style = look.point(method)
            if total > alone:
                axis.plot([alone, total], [average["estimate"]] * 2, color=style["color"], lw=0.6, ls=":", zorder=1)
            axis.errorbar(total, average["estimate"], yerr=whiskers(average), **style)
        for method in facts.untrained:
            base = results.average(model, method)
            if base is not None:
                axis.axhline(base["estimate"], color=QUIET, lw=0.7, ls=(0, (4, 2)), label=f"{method} (not trained)")
        axis.set_title(model)
        axis.set_xlabel(f"training time, {unit}")
        axis.margins(x=0.12)
        best = max((r for r in rows if r[0] in facts.contenders), key=lambda r: r[1]["estimate"], default=None)
        if best:
            words.append(f"{model}: highest {best[0]}, {row_estimate(best[1])}")
    axes[0].set_ylabel("average score, %", color=INK)
    legend_below(figure, axes)
    caption = (
        "Ten-task average (95 % interval) against the total training time of a run: CPU time where there is no GPU. "
        "Time includes training the reference model and its loss passes, for each method that needs them: the dotted line "
        "starts where the time would be without them. Hollow markers are bounds, not contenders."
    ).replace("Ten-task average", "Average over the benchmarks")
    alt = f"Scatter of average score over training time, a panel a model. {'; '.join(words)}."
    return [Drawn("tradeoff", TITLE, caption, alt, figure)]
