"""The shared token-selection module: torch only; it knows tensors, not datasets, trainers or files.

Shape legend used throughout: N tokens, D hidden size, V vocabulary, B samples, T positions, H query heads,
G key/value heads, K head size.  Position i of every ``_BT`` tensor speaks of token ``x_i``.
"""

from .anchor import anchor_divergence
from .attention import attention_mass
from .contract import SIGNALS, Chooser, Rows, Scorer, Signals
from .ranking import keep_top, kept_count, minmax, rank_share
from .token_loss import token_loss

__all__ = [
    "SIGNALS",
    "Chooser",
    "Rows",
    "Scorer",
    "Signals",
    "anchor_divergence",
    "attention_mass",
    "keep_top",
    "kept_count",
    "minmax",
    "rank_share",
    "token_loss",
]
