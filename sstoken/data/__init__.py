"""Instruction data: rows from files or the hub, rendered, tokenised once, stored flat."""

from sstoken.data.encode import token_data, tokenize
from sstoken.data.readers import BadRow, DataError, Row, read_rows, rows_of
from sstoken.data.tokens import TokenData

__all__ = ["BadRow", "DataError", "Row", "TokenData", "read_rows", "rows_of", "token_data", "tokenize"]
