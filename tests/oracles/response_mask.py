"""Which tokens are response, and which are noise, by decoding: a token's bytes, laid end to end, say where it stands."""

from __future__ import annotations


def by_bytes(tokenizer, ids: list[int], prompt_parts: list[tuple[bool, str]]) -> list[bool]:
    """``prompt_parts``: (is response, text) pieces whose concatenation is the whole text, for byte-level tokenizers.

    Every token stands for a run of bytes (an added token for its own text); a token is response if the byte that it
    starts with is one of a response.
    """
    sides = [response for response, text in prompt_parts for _ in text.encode()]
    return [bool(start) and sides[start] for start, _ in byte_spans(tokenizer, ids, len(sides))]


def noise_by_bytes(tokenizer, ids: list[int], text: str, code_of_character: list[int]) -> list[int]:
    """The code of each token: the highest among the characters that any of its bytes belongs to, 0 for none."""
    owner = [number for number, character in enumerate(text) for _ in character.encode()]
    spans = byte_spans(tokenizer, ids, len(owner))
    return [max((code_of_character[owner[byte]] for byte in range(*span)), default=0) for span in spans]


def byte_spans(tokenizer, ids: list[int], total: int) -> list[tuple[int, int]]:
    """Bytes (start, end) of each token, which together are the whole text's ``total``."""
    alphabet = {character: byte for byte, character in _byte_alphabet().items()}
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    spans, place = [], 0
    for token in tokenizer.convert_ids_to_tokens(ids):
        length = len(token.encode() if token in added else bytes(alphabet[c] for c in token))
        spans.append((place, place + length))
        place += length
    assert place == total
    return spans


def _byte_alphabet() -> dict[int, str]:
    """The usual byte-level alphabet: printable bytes stand for themselves, the rest for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
