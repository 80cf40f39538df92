"""Two experiments on the same questions: how much better is the second, surely or not, and what was set otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sstoken.records.files import atomic_write
from sstoken.report.numbers import EMPTY, interval, number, p_value, signed
from sstoken.report.question_scores import AVERAGE, ModelRuns, pooled, read_runs
from sstoken.report.statistics import MARGIN, Estimates, estimate, holm
from sstoken.report.tables import heldout, safety
from sstoken.report.tables.estimates import ALL_MODELS, ALPHA, verdict
from sstoken.report.tables.formats import markdown, write_csv

COLUMNS = [
    "model", "method", "benchmark", "a", "b", "estimate", "low", "high", "p", "p_holm", "significant", "mde",
    "p_equivalent", "equivalent", "same",
]  # fmt: skip
SAME = "same"


@dataclass(frozen=True)
class Comparison:
    """Experiment b minus experiment a.

    differences: columns ``COLUMNS``, percent points; a and b are the scores. Rows of ``all models`` are the mean over models.
    settings: setting, a, b: what the jobs' records say differently; empty where an experiment has no such setting.
    """

    a: str
    b: str
    differences: pd.DataFrame
    settings: pd.DataFrame

    @property
    def table(self) -> str:
        """The averages and the settings, as Markdown."""
        rows = self.differences[self.differences["benchmark"] == AVERAGE].reset_index(drop=True)
        frame = pd.DataFrame(
            {
                "model": rows["model"],
                "method": rows["method"],
                self.a: rows["a"].map(number),
                self.b: rows["b"].map(number),
                "difference": rows["estimate"].map(signed),
                "95 % interval": [interval(*ends, plus=True) for ends in zip(rows["low"], rows["high"], strict=True)],
                "p (Holm)": rows["p_holm"].map(p_value),
                "verdict": [SAME if row["same"] else verdict(row) or EMPTY for _, row in rows.iterrows()],
                "detectable": rows["mde"].map(number),
            }
        )
        caption = (
            f"Average score of {self.b} minus that of {self.a}, percent points, paired by question and seed. Better or worse: "
            "not 0 at 5 % after Holm's correction over the methods of this table (a single method stands alone). Level: within "
            f"± {MARGIN:g} point (two one-sided tests). Open: neither is shown. Same: every question is answered alike, so "
            "nothing is tested. Rows of all models: the mean over models."
        )
        text = markdown(frame, ["left", "left", *["right"] * 4, "right", "left", "right"], caption)
        if self.settings.empty:
            return f"{text}\nThe records name no setting that differs.\n"
        shown = self.settings.astype(str).replace("", EMPTY)
        shown.columns = ["setting", self.a, self.b]
        return f"{text}\n{markdown(shown, ['left'] * 3, 'What the records say differently.')}"

    def figure(self):
        """Each method's difference of the average with its interval, a marker a model; a ``sstoken.report.figures`` Drawn."""
        from sstoken.report.figures import style

        rows = self.differences[self.differences["benchmark"] == AVERAGE]
        methods, models = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["model"]))
        figure, (axis,) = style.panels(1, height=0.9 + 0.1 * len(methods) * len(models))
        for place, model in enumerate(models):
            look = {
                "color": style.COLOURS[place % len(style.COLOURS)],
                "marker": style.MARKERS[place % len(style.MARKERS)],
            }
            mine = rows[rows["model"] == model].set_index("method")
            shift = (place - (len(models) - 1) / 2) * 0.7 / len(models)
            for row, method in enumerate(methods):
                if method in mine.index:
                    found = mine.loc[method]
                    face = look["color"] if bool(found["significant"]) else style.PAPER
                    axis.errorbar(
                        found["estimate"], row + shift, xerr=style.whiskers(found), linestyle="none", markersize=3.5,
                        markerfacecolor=face, elinewidth=0.8, **look,
                    )  # fmt: skip
            axis.plot([], [], linestyle="none", label=model, **look)
        axis.axvline(0, color=style.QUIET, lw=0.7, zorder=0)
        axis.set_yticks(range(len(methods)), methods)
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.set_xlabel(f"average of {self.b} minus {self.a}, percent points", color=style.INK)
        style.legend_below(figure, [axis])
        title = f"{self.b} minus {self.a}"
        caption = (
            "Difference of the average score, 95 % interval. Filled: significant after Holm's correction; hollow: not."
        )
        words = "; ".join(f"{r.model}, {r.method}: {signed(r.estimate, 1)}" for r in rows.itertuples())
        return style.Drawn("comparison", title, caption, f"Forest plot. {words}.", figure)

    def write(self, folder: str | Path) -> list[Path]:
        """``comparison.{csv,md,svg,pdf,png}`` and ``settings.csv``; returns their paths."""
        from sstoken.report.figures import style

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(self.differences, folder / "comparison.csv")
        write_csv(self.settings, folder / "settings.csv")
        with atomic_write(folder / "comparison.md") as temporary:
            Path(temporary).write_text(self.table)
        with style.styled():
            style.save(self.figure(), folder)
        return [folder / f"comparison.{kind}" for kind in ("csv", "md", "svg", "pdf", "png")] + [
            folder / "settings.csv"
        ]


def compare(a_root: str | Path, b_root: str | Path, method: str | None = None) -> Comparison:
    """Compare what two experiments have in common: models, methods, benchmarks and seeds.

    Each difference is taken question by question and seed by seed, with the intervals and tests of the report
    (docs/statistics.md).

    Args:
        a_root, b_root: folders ``results/{experiment}`` with a ``samples.parquet``. method: one method alone.

    Raises:
        ValueError: no ``samples.parquet``, nothing in common, an unknown method, or different questions.
    """
    roots = [Path(a_root), Path(b_root)]
    names = [root.name for root in roots] if roots[0].name != roots[1].name else [str(root) for root in roots]
    if roots[0].resolve() == roots[1].resolve():
        raise ValueError(f"{roots[0]} is compared with itself; give two experiments")
    keys = [_keys(root) for root in roots]
    common = keys[0].merge(keys[1])
    if method is not None:
        for root, known in zip(roots, keys, strict=True):
            if method not in set(known["method"]):
                raise ValueError(
                    f"{root}: no scores of method {method!r}; known: {', '.join(sorted(set(known['method'])))}"
                )
        common = common[common["method"] == method]
    if common.empty:
        raise ValueError(f"{roots[0]} and {roots[1]} have no model, method, seed and benchmark in common")
    benchmarks = sorted(set(common["benchmark"]))
    paired = []
    for model in dict.fromkeys(common["model"]):
        mine = common[common["model"] == model]
        paired.append(_paired(roots, model, mine, benchmarks))
    metrics = _metrics(roots[1])
    averaged, _ = heldout.apart(safety.apart(benchmarks, metrics)[0], metrics)
    parts = [_rows(runs, benchmarks, averaged) for runs in paired]
    frame = _adjusted(pd.concat(parts, ignore_index=True))
    if len(paired) > 1:
        whole = pooled(paired, ALL_MODELS)
        if whole.methods:
            frame = pd.concat([frame, _adjusted(_rows(whole, benchmarks, averaged))], ignore_index=True)
    return Comparison(*names, frame[COLUMNS], differing_settings(*roots))


def _keys(root: Path) -> pd.DataFrame:
    path = root / "samples.parquet"
    if not path.exists():
        raise ValueError(f"{path}: no such file; give the folder of an experiment whose scores are collected")
    return pd.read_parquet(path, columns=["model", "method", "seed", "benchmark"]).drop_duplicates()


def _metrics(root: Path) -> dict[str, str]:
    """benchmark -> its metric, as far as the experiment's scores say."""
    path = root / "scores.csv"
    return dict(pd.read_csv(path, usecols=["benchmark", "metric"]).values) if path.exists() else {}


def _paired(roots: list[Path], model: str, common: pd.DataFrame, benchmarks: list[str]) -> ModelRuns:
    """Both experiments' runs as one: its methods are those of a, then the same of b."""
    seeds = {name: sorted(set(rows["seed"])) for name, rows in common.groupby("method", sort=False)}
    width = max(map(len, seeds.values()))
    shared = sorted(set.intersection(*(set(s) for s in seeds.values() if len(s) > 1)) if width > 1 else [])
    seeds = {name: found if len(found) == 1 or not shared else shared for name, found in seeds.items()}
    both = [read_runs(root / "samples.parquet", model, seeds, benchmarks)[0] for root in roots]
    methods = [name for name in both[0].methods if name in both[1].methods]
    if not methods:
        raise ValueError(f"model {model}: no method is complete in both {roots[0]} and {roots[1]}")
    both = [_only(runs, methods) for runs in both]
    for task, benchmark in enumerate(benchmarks):
        if not np.array_equal(both[0].questions[task], both[1].questions[task]):
            raise ValueError(
                f"benchmark {benchmark}, model {model}: {roots[0]} and {roots[1]} were scored on different questions, so their "
                "difference cannot be paired; evaluate both with the same settings and benchmark files"
            )
    scores = tuple(np.concatenate(parts) for parts in zip(*(runs.scores for runs in both), strict=True))
    others = tuple(f"{method} (b)" for method in methods)
    return replace(both[0], methods=(*methods, *others), scores=scores, seeded=np.tile(both[0].seeded, 2))


def _only(runs: ModelRuns, methods: list[str]) -> ModelRuns:
    rows = [runs.methods.index(method) for method in methods]
    scores = tuple(part[rows] for part in runs.scores)
    return replace(runs, methods=tuple(methods), scores=scores, seeded=runs.seeded[rows])


def _rows(runs: ModelRuns, benchmarks: list[str], averaged: list[str]) -> pd.DataFrame:
    count = len(runs.methods) // 2
    unit, share = np.eye(2 * count), np.isin(benchmarks, averaged) / len(averaged)
    cells = np.vstack([np.eye(len(benchmarks)), share])
    found: Estimates = estimate(runs, np.vstack([unit[count:] - unit[:count], unit]), cells)
    gap, titles = found[:count], [*benchmarks, AVERAGE]
    low, high = gap.interval()
    columns = {
        "a": found.value[count : 2 * count], "b": found.value[2 * count :], "estimate": gap.value, "low": low, "high": high,
        "p": gap.p_value(), "mde": gap.detectable(), "p_equivalent": gap.equivalence_p(),
    }  # fmt: skip
    frame = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    names = np.repeat(np.array(runs.methods[:count], dtype=object), len(titles))
    alike = np.array(
        [[np.array_equal(part[m], part[count + m], equal_nan=True) for part in runs.scores] for m in range(count)]
    )
    mean = (alike | ~np.isin(benchmarks, averaged)).all(1, keepdims=True)
    same = np.concatenate([alike, mean], axis=1).ravel()
    return frame.assign(model=runs.model, method=names, benchmark=titles * count, same=same)


def _adjusted(frame: pd.DataFrame) -> pd.DataFrame:
    """Holm's families: the averages, and the single benchmarks. What is answered alike is no test and stands in none."""
    family = (frame["benchmark"] == AVERAGE).where(~frame["same"])
    columns = (frame.groupby(family)[p].transform(lambda p: holm(p.to_numpy())) for p in ("p", "p_equivalent"))
    differ, level = (column.where(~frame["same"]) for column in columns)
    return frame.assign(p_holm=differ, significant=differ <= ALPHA, equivalent=level <= ALPHA)


def differing_settings(a_root: Path, b_root: Path) -> pd.DataFrame:
    """setting, a, b: what the records of both experiments say differently."""
    found = [_settings(root) for root in (a_root, b_root)]
    keys = dict.fromkeys([*found[0], *found[1]])
    rows = [(key, found[0].get(key, ""), found[1].get(key, "")) for key in keys]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["setting", "a", "b"])


def _settings(root: Path) -> dict[str, str]:
    """Setting -> its values, in all records of its kind."""
    values: dict[str, set[str]] = {}

    def add(prefix: str, value) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else key, inner)
        else:
            values.setdefault(prefix, set()).add(json.dumps(value, ensure_ascii=False).strip('"'))

    def records(pattern: str):
        return ((path, json.loads(path.read_text())) for path in sorted(root.glob(pattern)))

    for path, record in records("models/*/model.json"):
        add(f"models.{path.parent.name}", {**record.get("entry", {}), "weights": record.get("weights_sha256", "")[:12]})
    for path, record in records("tokens/*/**/*.json"):
        for place, section in enumerate(record.get("sections", [])):
            own = {k: v for k, v in section.items() if k != "sources"}  # paths differ by the folder's name
            add(f"data.{path.stem}" + (f".{place}" if place else ""), own)
        add(f"data.{path.stem}", {"tokens": record.get("tokens_sha256", "")[:12]})
    for path, record in records("runs/*/*/seed*/**/run.json"):
        method = path.relative_to(root / "runs").parts[1]
        add("training", record.get("settings", {}))
        add(f"methods.{method}", record.get("entry", {}))
        add("", {"samples": record.get("samples"), "steps": record.get("steps")})
    for _, record in records("scores/*/*/seed*/evaluation.json"):
        add("evaluation", record.get("evaluation", {}).get("settings", {}))
        add("software", {"commit": record["software"]["commit"], **record["software"]["versions"]})
    return {key: ", ".join(sorted(found)) for key, found in values.items()}
