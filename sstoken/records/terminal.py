"""Weight and colour for a terminal that has them; plain text for files, pipes and whoever sets ``NO_COLOR``."""

from __future__ import annotations

import os
from typing import TextIO

STYLES = {"plain": "0", "bold": "1", "red": "31"}


def has_colours(stream: TextIO) -> bool:
    """Whether the stream is a terminal that shows them (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text's first line in one of ``STYLES``, where the stream has them."""
    if not has_colours(stream):
        return text
    first, end, rest = text.partition("\n")
    return f"\033[{STYLES[style]}m{first}\033[0m{end}{rest}"
