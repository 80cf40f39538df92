"""Every method of the benchmark: one file a scorer, one entry of ``methods.yaml`` a method.

A scorer is found by its place: ``sstoken/selection/methods/mine.py`` with a frozen ``Config(Scorer)``, or any file of your
own by its path.  An entry names a scorer and says how much is kept, ranked within what, against which weights.  Entries of
your own file, or of a configuration's ``own_methods``, add to those of ``methods.yaml`` and may extend them.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Literal

from sstoken.records.documents import read_yaml
from sstoken.selection import Chooser, Scorer
from sstoken.selection.contract import FROM_LOGITS, SIGNALS, STATIC_SIGNALS, kind_of

METHODS_FILE = Path(__file__).parent / "methods.yaml"
TRACKS_FILE = Path(__file__).parent / "tracks.yaml"

OWN_HISTORY = ("ema", "checkpoint")

UNTRAINED = ("base", "unconditional")
"""Labels of losses that need no run: of the base on the data, and on its responses without their prompts."""


class MethodError(ValueError):
    """A method's entry that does not make sense; the message names entry, key and known values."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One entry of ``methods.yaml``, complete.

    name: the key of the entry; results are filed under it.
    scorer: settings of ``sstoken/selection/methods/<scorer>.py``, or None for the untrained base.
    keep_ratio: ρ, kept share of response tokens, in [0, 1].
    scope: rank within the sample, the micro-batch or the data set (with ``parts``: the part).
    rounding: of ρ·n. ssToken: ceil; TokenCleaning: floor.
    references: name -> weights that give ``reference_loss:name``, like ``reference``, for methods with several.
    reference: weights that give ``reference_loss``: "reference", "previous" (the chain itself, needs parts > 1), or
        another method of the grid (same model and seed).
    history: weights that give ``history_loss``: "base"; "ema" or "checkpoint" of the run itself; "reference", or another
        method of the grid.
    history_decay: α of the EMA ``his = α·his + (1-α)·θ``, once a step.
    history_steps: a "checkpoint" history is the run's own weights as they were at the last multiple of so many steps.
    parts: the data is cut in so many parts, each trained on from the one before; part 0 in full.
    data: which data set of the configuration is trained on.
    normalisation: what the sum of weighted losses is divided by.  "tokens": kept tokens of the global batch; "samples":
        each sample's kept tokens, then the number of samples (ssToken's Eq. 11); "response": all response tokens of
        the global batch, kept or not; "micro-batch": each micro-batch's kept tokens, then the number of micro-batches
        (the releases).
    attention_layer: "shallow" (first), "middle", "deep" (last, as in the release), or an index from 0.
    prompt: "positions" (all that is not response) or "leading" (ssToken's release: the count of all that is not response
        is taken for the prompt's length; what lies behind it is ranked, a response token before it always kept).
    anchor: ``{weights: base, weight: λ}`` adds ``λ·KL(base ‖ θ)`` at every response token, base = the adapter off.
    random_seed: of the uniform draw; None = the run's seed (the release: 42).
    learning_rate_factor: of the recipe's learning rate.
    steps_factor: of the recipe's steps; 0.5 trains on the first half of what the others train on.
    kind: "control" or "bound"; None: what the scorer yields ("mask", "weight" or "rows").
    source: where the settings come from.
    claim: what a paper reports of a method of your own; of the shipped ones claims.yaml says it.
    """

    name: str
    scorer: Scorer | None
    keep_ratio: float = 1.0
    scope: Literal["sample", "batch", "dataset"] = "sample"
    rounding: Literal["ceil", "floor"] = "ceil"
    reference: str = "reference"
    references: dict[str, str] = field(default_factory=dict, hash=False)
    history: str = "base"
    history_decay: float = 0.99
    history_steps: int = 20
    parts: int = 1
    data: str = "train"
    normalisation: Literal["tokens", "samples", "response", "micro-batch"] = "tokens"
    attention_layer: str | int = "deep"
    prompt: Literal["positions", "leading"] = "positions"
    random_seed: int | None = None
    anchor: dict | None = field(default=None, hash=False)
    learning_rate_factor: float = 1.0
    steps_factor: float = 1.0
    kind: Literal["mask", "weight", "rows", "bound", "control"] | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)
    claim: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.keep_ratio <= 1:
            raise MethodError(f"method {self.name}: keep_ratio must lie in [0, 1], not {self.keep_ratio}")
        for factor in ("learning_rate_factor", "steps_factor"):
            if not 0 < getattr(self, factor) <= 1:
                raise MethodError(f"method {self.name}: {factor} must lie in (0, 1], not {getattr(self, factor)}")
        if self.kind is None:
            derived = "weight" if self.scorer and self.scorer.weighs else "mask"
            derived = "rows" if self.chooses else "control" if self.scorer is None else derived
            object.__setattr__(self, "kind", derived)
        unknown = {s for s in self.needs if kind_of(s) not in SIGNALS}
        if unknown:
            raise MethodError(f"method {self.name}: unknown signal {sorted(unknown)}; known: {', '.join(SIGNALS)}")
        if self.anchor is not None:
            weight = self.anchor.get("weight")
            if self.anchor.keys() != {"weights", "weight"} or self.anchor["weights"] != "base" or not weight > 0:
                raise MethodError(
                    f"method {self.name}: anchor must be {{weights: base, weight: a positive number}}, not {self.anchor}"
                )
            if self.normalisation not in ("response", "micro-batch"):
                raise MethodError(
                    f"method {self.name}: an anchor holds at every response token: use normalisation 'response', or "
                    "'micro-batch'"
                )
        named = {s.partition(":")[2] for s in self.needs if ":" in s}
        if named != self.references.keys():
            raise MethodError(
                f"method {self.name}: needs weights for the references {', '.join(sorted(named)) or 'none'}; "
                f"`references` names {', '.join(sorted(self.references)) or 'none'}"
            )
        if self.scope == "dataset" and not self.static:
            dynamic = ", ".join(sorted(s for s in self.scorer.scored_by if kind_of(s) not in STATIC_SIGNALS))
            raise MethodError(
                f"method {self.name}: scope 'dataset' ranks all tokens before the first step, but its scores need "
                f"{dynamic}, known only at each step; use scope 'sample' or 'batch'"
            )
        if self.prompt == "leading" and (self.static or self.scope != "sample" or self.scorer.weighs):
            raise MethodError(
                f"method {self.name}: prompt 'leading' is ssToken's release, which ranks at each step, within the sample, "
                "without weights"
            )
        if not self.counted and self.normalisation == "tokens":
            raise MethodError(
                f"method {self.name}: how many tokens are kept is known only once they are scored, so the global batch's "
                "kept tokens cannot be divided by; use normalisation 'response', 'samples' or 'micro-batch'"
            )
        if self.history_steps < 1:
            raise MethodError(f"method {self.name}: history_steps must be at least 1, not {self.history_steps}")
        if self.reference == "previous" and self.parts < 2:
            raise MethodError(f"method {self.name}: reference 'previous' is a chain of parts; set parts to 2 or more")

    @property
    def trains(self) -> bool:
        return self.scorer is not None

    @property
    def needs(self) -> frozenset[str]:
        return self.scorer.needs if self.scorer else frozenset()

    @property
    def static(self) -> bool:
        """The mask is known before the first step."""
        return {kind_of(s) for s in (self.scorer.scored_by if self.scorer else ())} <= STATIC_SIGNALS

    @property
    def chooses(self) -> bool:
        """Rows are chosen before the step."""
        return isinstance(self.scorer, Chooser)

    @property
    def counted(self) -> bool:
        """How many tokens are kept is known before the step."""
        return self.static or (self.scorer.keep_above is None and self.prompt == "positions")

    @property
    def reads_logits(self) -> bool:
        """Scores or weights need every response token's logits."""
        return self.trains and (self.scorer.weighs or self.anchor is not None or bool(self.needs & FROM_LOGITS))

    @property
    def pools(self) -> bool:
        """What is trained depends on which samples share a micro-batch."""
        if not self.trains:
            return False
        return self.scorer.pools or self.scope == "batch" or self.normalisation == "micro-batch"

    @property
    def keeps_all(self) -> bool:
        """Every response token counts the same, whatever its score: the method trains in full."""
        if not self.trains or self.scorer.keep_above is not None or self.scorer.weighs or self.chooses or self.anchor:
            return False
        return self.keep_ratio == 1 and self.parts == 1

    @property
    def weights(self) -> dict[str, str]:
        """Which frozen weights each loss signal comes from; those that a run computes by itself are left out."""
        wanted = {"base_loss": "base", "reference_loss": self.reference, "history_loss": self.history}
        wanted["unconditional_loss"] = "unconditional"
        wanted |= {f"reference_loss:{name}": weights for name, weights in self.references.items()}
        return {s: w for s, w in wanted.items() if s in self.needs and w not in (*OWN_HISTORY, "previous")}

    @property
    def own_history(self) -> bool:
        """The history is made of the run's own earlier weights, and its losses are measured at each step."""
        return "history_loss" in self.needs and self.history in OWN_HISTORY


def scorers() -> dict[str, type[Scorer]]:
    """Name -> Config class of every file in this folder."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        config = getattr(importlib.import_module(f"{__name__}.{module.name}"), "Config", None)
        if not (isinstance(config, type) and issubclass(config, Scorer)):
            raise MethodError(f"sstoken/selection/methods/{module.name}.py has no class Config(Scorer)")
        found[module.name] = config
    return found


def scorer_of(name: str, where: str | Path) -> type[Scorer]:
    """The Config class of a scorer of this folder, by name, or of a file of your own, by path (``ideas/mine.py``).

    Raises:
        MethodError: an unknown name, or a file that is not there, does not run, or has no ``Config(Scorer)``.
    """
    if not name.endswith(".py"):
        available = scorers()
        _known("scorer", name, available, where)
        return available[name]
    path = Path(name).resolve()
    if not path.is_file():
        raise MethodError(
            f"{where}: scorer {name}: no such file (a path counts from the working directory, {Path.cwd()})"
        )
    try:
        return _scorer_of_file(path, hashlib.sha256(f"{path}\0".encode() + path.read_bytes()).hexdigest())
    except MethodError as error:
        raise MethodError(f"{where}: {error}") from error


@cache
def _scorer_of_file(path: Path, digest: str) -> type[Scorer]:
    """``digest``, of path and content, tells an edited file from the one that was read before."""
    module_name = f"sstoken_scorer_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        frames = []
        trace = error.__traceback__
        while trace:
            frames += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == str(path) else []
            trace = trace.tb_next
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else "?"
        raise MethodError(f"scorer {path}:{line}: {type(error).__name__}: {error}") from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Scorer)):
        raise MethodError(f"scorer {path}: no class Config(Scorer); README shows one")
    return config


def track_options(track: str) -> dict:
    """``{methods: …, evaluation: …}`` of one track of ``tracks.yaml``.

    Raises:
        MethodError: an unknown track.
    """
    tracks = read_yaml(TRACKS_FILE)
    _known("track", track, tracks, TRACKS_FILE.name)
    return tracks[track]


def entries_of(document: dict, track: str = "corrected", where: str | Path = METHODS_FILE) -> dict[str, dict]:
    """name -> plain entry, with ``extends`` resolved and the track's options applied.

    Args:
        document: ``{methods: {name: entry}}``; its entries add to those of ``methods.yaml`` and go before them.

    Raises:
        MethodError: an unknown track, or a track's option for an unknown method.
    """
    entries = read_yaml(METHODS_FILE)["methods"] | document["methods"]
    options = track_options(track).get("methods") or {}
    for name in options:
        _known("method", name, [*entries, "all"], f"{TRACKS_FILE.name}, track {track}")
    return {name: _resolve(name, entries, options, where) for name in entries}


def load_methods(path: str | Path = METHODS_FILE, track: str = "corrected") -> dict[str, Method]:
    """All methods: those of ``methods.yaml`` and of ``path``, with the track's options applied.

    Raises:
        MethodError: an unknown track, scorer, key or parameter; the message lists the known ones.
        ConfigError: a file that is not there or is no YAML.
    """
    entries = entries_of(read_yaml(path), track, path)
    return {name: build_method(name, entry, path) for name, entry in entries.items()}


def load_method(name: str, path: str | Path = METHODS_FILE, track: str = "corrected") -> Method:
    """One method by name, e.g. ``load_method("sstoken")``.

    Warns where a part of the method is not its selection: that part the grid does, and a script of one's own must.
    """
    methods = load_methods(path, track)
    _known("method", name, methods, path)
    for said in _beside_selection(methods[name]):
        warnings.warn(f"method {name}: {said}", stacklevel=2)
    return methods[name]


def _beside_selection(method: Method) -> Iterator[str]:
    if method.steps_factor != 1:
        yield f"the grid trains it for {method.steps_factor:g} of the steps; a script sets max_steps so"
    if method.learning_rate_factor != 1:
        yield f"the grid trains it at {method.learning_rate_factor:g} of the learning rate; a script sets learning_rate so"
    if method.data != "train":
        yield f"the grid trains it on the data set {method.data!r}; a script passes those rows"


def _resolve(name: str, entries: dict, options: dict, path, trail: tuple[str, ...] = ()) -> dict:
    """The entry over what it extends, each with the track's options: a variant follows its parent onto a track."""
    if name in trail:
        raise MethodError(f"{path}: methods extend each other: {' -> '.join([*trail, name])}")
    entry = dict(entries[name] or {})
    parent = entry.pop("extends", None)
    if parent is None:
        return _merge(_merge(entry, options.get("all", {}) if entry.get("scorer") else {}), options.get(name, {}))
    _known("method", parent, entries, f"{path}, method {name}, extends")
    return _merge(_merge(_resolve(parent, entries, options, path, (*trail, name)), entry), options.get(name, {}))


def _merge(under: dict, over: dict) -> dict:
    merged = {**under, **over}
    if over.get("scorer", under.get("scorer")) == under.get("scorer"):
        merged["parameters"] = {**under.get("parameters", {}), **over.get("parameters", {})}
    return merged


def build_method(name: str, entry: dict, path: str | Path = METHODS_FILE) -> Method:
    """The method of a plain entry; ``path`` names its file in errors."""
    entry = dict(entry)
    scorer_name, parameters = entry.pop("scorer", None), entry.pop("parameters", {})
    known = [f.name for f in fields(Method) if f.name not in ("name", "scorer")]
    for key in entry:
        _known("key", key, [*known, "scorer", "parameters", "extends"], f"{path}, method {name}")
    scorer = None
    if scorer_name is not None:
        config = scorer_of(scorer_name, f"{path}, method {name}")
        try:
            scorer = config.from_parameters(parameters)
        except ValueError as error:
            raise MethodError(f"{path}, method {name}: {error}") from error
    return Method(name=name, scorer=scorer, **entry)


def _known(what: str, name: str, known, where) -> None:
    if name not in known:
        guess = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
        hint = f" Did you mean {guess[0]!r}?" if guess else ""
        raise MethodError(f"{where}: unknown {what} {name!r}.{hint} Known: {', '.join(map(str, known))}")
