"""Which tokens are response, by decoding: tokens whose characters, laid end to end, fall within a response."""

from __future__ import annotations


def by_bytes(tokenizer, ids: list[int], prompt_parts: list[tuple[bool, str]]) -> list[bool]:
    """``prompt_parts``: (is response, text) pieces whose concatenation is the whole text, for byte-level tokenizers.

    Every token stands for a run of bytes (an added token for its own text); a token is response if the byte that it
    starts with is one of a response.
    """
    alphabet = {character: byte for byte, character in _byte_alphabet().items()}
    sides = [response for response, text in prompt_parts for _ in text.encode()]
    mask, place = [], 0
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    for token in tokenizer.convert_ids_to_tokens(ids):
        mask.append(bool(place) and sides[place])
        raw = token.encode() if token in added else bytes(alphabet[c] for c in token)
        place += len(raw)
    assert place == len(sides)
    return mask


def _byte_alphabet() -> dict[int, str]:
    """The usual byte-level alphabet: printable bytes stand for themselves, the rest for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
