"""What a method keeps and drops over a whole data set: which tokens, where in the response, of what kind, as whom.

Shapes: R response tokens of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from sstoken.report.results import Results
from sstoken.report.selection_files import selections_of

SHOWN = 12
"""Tokens in each list; fewer where there are not twice as many, so that none stands in both."""
LEAST = 20
"""A token is listed where it occurs as often as this: a share of fewer says little."""
DECILES = 10


@dataclass(frozen=True)
class Extreme:
    """A token: its text, how often it is in the responses, and the share of these that was kept."""

    text: str
    count: int
    kept: float


@dataclass(frozen=True)
class KeptTokens:
    """Of one model's first seed, over all responses that were trained on.

    methods: those that drop tokens. kept: method -> share of its tokens kept.
    dropped_most, kept_most: method -> tokens by the share that was kept, at least ``LEAST`` occurrences.
    positions: share kept, a row a tenth of the response (1 to 10), a column a method.
    kinds: share kept, a row a kind of token, a column a method, and ``tokens``, the kind's count.
    overlap: of the tokens that the row's method drops, the share that the column's drops too; two methods that drop
    independently of each other have the column's own dropped share there.
    """

    methods: list[str]
    tokens: int
    kept: dict[str, float]
    dropped_most: dict[str, list[Extreme]]
    kept_most: dict[str, list[Extreme]]
    positions: pd.DataFrame
    kinds: pd.DataFrame
    overlap: pd.DataFrame


def kept_tokens(results: Results, model: str) -> KeptTokens | None:
    """None where no run that selects is there."""
    vocabulary = results.root / "models" / model / "tokenizer.json"
    found = selections_of(results.root, model, results.facts.contenders, results.facts.seeds[0])
    if found is None or not vocabulary.exists():
        return None
    data, selections = found
    # a method may have stopped early, or chosen rows: only what all were trained on is compared
    trained_R = np.logical_and.reduce([chosen.trained(data) for chosen in selections.values()])
    if not trained_R.any():
        return None
    id_R = data.input_ids[data.response_mask].numpy()[trained_R]
    counts = data.response_offset.diff().numpy()
    position_R = np.concatenate([np.arange(n) * DECILES // max(n, 1) for n in counts])[trained_R] + 1
    tokenizer = Tokenizer.from_file(str(vocabulary))
    names, index_R, count = np.unique(id_R, return_inverse=True, return_counts=True)
    kind_of = np.array([token_kind(int(token), tokenizer) for token in names])
    keeps = {method: chosen.keep[trained_R] for method, chosen in selections.items()}
    dropped, kept = {}, {}
    for method, keep_R in keeps.items():
        share = np.bincount(index_R, weights=keep_R, minlength=len(names)) / count
        often = np.flatnonzero(count >= LEAST)
        shown = min(SHOWN, len(often) // 2)
        # of equal shares the more frequent token first
        order = often[np.lexsort((-count[often], share[often]))]
        back = often[np.lexsort((-count[often], -share[often]))]
        dropped[method], kept[method] = (
            [Extreme(token_text(int(names[i]), tokenizer), int(count[i]), float(share[i])) for i in places[:shown]]
            for places in (order, back)
        )
    frame = pd.DataFrame(keeps)
    kinds = frame.groupby(kind_of[index_R]).mean()
    kinds.insert(0, "tokens", pd.Series(kind_of[index_R]).value_counts())
    overlap = pd.DataFrame(
        {other: [_share(~keeps[other], ~keep) for keep in keeps.values()] for other in keeps}, list(keeps)
    )
    return KeptTokens(
        methods=list(keeps),
        tokens=len(id_R),
        kept={method: float(keep.mean()) for method, keep in keeps.items()},
        dropped_most=dropped,
        kept_most=kept,
        positions=frame.groupby(position_R).mean(),
        kinds=kinds.sort_values("tokens", ascending=False),
        overlap=overlap,
    )


def _share(what: np.ndarray, among: np.ndarray) -> float:
    return float(what[among].mean()) if among.any() else np.nan


def token_kind(token: int, tokenizer: Tokenizer) -> str:
    """special, white space, number, punctuation, word after a space, or word or part without one, by its own characters."""
    added = tokenizer.get_added_tokens_decoder().get(token)
    if added is not None and added.special:
        return "special"
    text, piece = tokenizer.decode([token], skip_special_tokens=False), tokenizer.id_to_token(token) or ""
    if not text.strip():
        return "white space"
    if any(character.isalpha() for character in text):
        return "word after a space" if piece[:1] in ("Ġ", "▁", " ") else "word or part without a space"
    return "number" if any(character.isdigit() for character in text) else "punctuation"


def token_text(token: int, tokenizer: Tokenizer) -> str:
    """Visible: a space is shown as ␣, a line break as ⏎."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    piece = tokenizer.id_to_token(token) or ""
    lead = " " if piece[:1] == "▁" and not text.startswith(" ") else ""
    return (lead + text).replace("\n", "⏎").replace(" ", "␣") or piece
