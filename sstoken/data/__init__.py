"""Instruction data: rows from files or the hub, rendered, tokenised once, stored flat."""

from sstoken.data.readers import BadRow, DataError, Row, read_rows
from sstoken.data.tokens import TokenData, tokenize

__all__ = ["BadRow", "DataError", "Row", "TokenData", "read_rows", "tokenize"]
