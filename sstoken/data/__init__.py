"""Instruction data: rows from files or the hub, rendered, tokenised once, stored flat."""

from sstoken.data.encode import check_limits, rows_within, token_data, tokenize
from sstoken.data.heldout import heldout_rows, write_heldout
from sstoken.data.planting import planted, unplanted
from sstoken.data.readers import BadRow, DataError, Row, read_rows, rows_of
from sstoken.data.tokens import TokenData

__all__ = [
    "BadRow",
    "DataError",
    "Row",
    "TokenData",
    "check_limits",
    "heldout_rows",
    "planted",
    "read_rows",
    "rows_of",
    "rows_within",
    "token_data",
    "tokenize",
    "unplanted",
    "write_heldout",
]
