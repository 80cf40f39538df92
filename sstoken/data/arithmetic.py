"""Numbers of a text changed, and in worked arithmetic everything that follows from the change."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

_DIGITS = r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?!\w)"
_NUMBER = re.compile(_DIGITS, re.ASCII)
_TOKEN = re.compile(
    rf"(?P<number>{_DIGITS})|(?P<sign>[-+*/×÷−=()])|(?P<times>x(?=\s*[\d($]))|(?P<unit>[$€£%]|[^\W\d_]+)|(?P<other>\S)",
    re.ASCII,
)
_SIGNS = {"−": "-", "×": "*", "x": "*", "÷": "/"}
_LIST_MARK = re.compile(r"(?:^|\n)\s*$")


class Number(NamedTuple):
    """text[start:end], its minus sign included."""

    start: int
    end: int
    text: str

    @property
    def value(self) -> Fraction:
        return Fraction(self.text.replace(",", ""))


class Equation(NamedTuple):
    """left: the expression as numbers (by their place in the text, 0 the first) and signs; results: numbers behind ``=``."""

    left: tuple[int | str, ...]
    results: tuple[int, ...]


def changed_numbers(text: str, draw: random.Random) -> list[tuple[int, int, str]]:
    """(start, end, new text) of a number that is drawn, and of those that the change makes wrong.

    Where the text works something out (``3 + 4 = 7``), a number of an equation is drawn.  Its result is worked out anew, and
    so is every later result that uses one that has changed; a later number that repeats a changed result changes with it.
    An equation that did not hold before (a rounded one) gets another wrong result.  What an equation is given, and what
    stands before the change, stays: the change does not make it wrong.  Behind the last ``=`` that cannot be read, every
    number may be drawn, before it none: what follows from it is not known.

    Returns:
        The changes in order, empty where the text holds no number.
    """
    found = list(_numbers(text))
    if not found:
        return []
    values = [number.value for number in found]
    equations, readable_from = _equations(text, found)
    inside = {n for equation in equations for n in (*_operands(equation), *equation.results) if n >= readable_from}
    candidates = sorted(inside) or list(range(readable_from, len(found)))
    if not candidates:
        return []
    pivot = draw.choice(candidates)
    new = {pivot: _other(found[pivot].text, draw)}
    worked_out = {result: equation for equation in equations for result in equation.results}
    derived = {values[pivot]: new[pivot]} if pivot in worked_out else {}
    for n in range(pivot + 1, len(found)):
        equation = worked_out.get(n)
        if equation is None:
            if values[n] in derived:
                new[n] = derived[values[n]]
            continue
        derived.pop(values[n], None)  # worked out again
        if any(operand in new for operand in _operands(equation)):
            changed = _worked_out(equation, n, values, new, found[n].text)
            changed = _other(found[n].text, draw) if changed is None else changed
            if changed != values[n]:
                new[n] = derived[values[n]] = changed
    return [(found[n].start, found[n].end, _format(new[n], found[n].text)) for n in sorted(new)]


def _worked_out(
    equation: Equation, result: int, values: list[Fraction], new: dict[int, Fraction], like: str
) -> Fraction | None:
    """The result with the changed numbers, as far as it can be written; None where the equation did not hold before."""
    before = _value(equation.left, dict(enumerate(values)))
    after = _value(equation.left, dict(enumerate(values)) | new)
    return None if before != values[result] or after is None else _writable(after, like)


def _numbers(text: str) -> Iterator[Number]:
    """Every number but those that count the items of a list (``1.`` or ``2)`` at the start of a line)."""
    for place in _NUMBER.finditer(text):
        start, end = place.span()
        if _LIST_MARK.search(text[:start]) and re.match(r"[.)](\s|$)", text[end : end + 2]):
            continue
        # a minus sign is the number's own where nothing stands before it that it could be taken from
        if text[start - 1 : start] == "-" and (start == 1 or text[start - 2] in " \t\n(=:$"):
            before = text[: start - 1].rstrip()[-1:]
            start -= not (before.isdigit() or before in (")", "%"))
        yield Number(start, end, text[start:end])


def _equations(text: str, found: list[Number]) -> tuple[list[Equation], int]:
    """The equations, and the first number behind the last equals sign that is none of theirs."""
    tokens = _tokens(text, found)
    values = {n: number.value for n, number in enumerate(found)}
    equations, readable_from, seen = [], 0, -1
    for place, token in enumerate(tokens):
        if isinstance(token, int):
            seen = token
        if token != "=":
            continue
        behind = [t for t in tokens[place + 1 : place + 5] if t != "unit"]
        result = behind[0] if behind and isinstance(behind[0], int) else None
        chained = bool(equations) and equations[-1].results[-1] == seen and _follows(tokens, place, seen)
        left = equations[-1].left if chained else _left_of(tokens[:place])
        # a sign behind the number: the right side works something out too, unless the number is what the left side gives
        ends = len(behind) < 2 or behind[1] not in ("+", "-", "*", "/")
        if result is None or not left or not (ends or _value(left, values) == values[result]):
            readable_from = seen + 1
        elif chained:
            equations[-1] = equations[-1]._replace(results=(*equations[-1].results, result))  # a = b = c
        else:
            equations.append(Equation(left, (result,)))
    return equations, readable_from


def _tokens(text: str, found: list[Number]) -> list[int | str]:
    """Numbers by their place in ``found``, signs of arithmetic, "unit" (a word or a currency sign), "other"."""
    number_at = {number.end: n for n, number in enumerate(found)}
    minus = {number.start for number in found if number.text[0] == "-"}
    tokens: list[int | str] = []
    for token in _TOKEN.finditer(text):
        if token["number"]:
            tokens.append(number_at.get(token.end(), "other"))
        elif token.start() not in minus:
            sign = token["sign"] or token["times"]
            tokens.append(_SIGNS.get(sign, sign) if sign else "unit" if token["unit"] else "other")
    return tokens


def _follows(tokens: list, place: int, number: int) -> bool:
    """Whether nothing but units stands between the number and the sign at ``place``."""
    return next((t for t in reversed(tokens[:place]) if t != "unit"), None) == number


def _left_of(tokens: list[int | str]) -> tuple[int | str, ...]:
    """The longest expression that ends here and works something out, units left out; () for none."""
    taken: list[int | str] = []
    for token in reversed(tokens):
        if token in ("=", "other"):
            break
        taken.insert(0, token)
    best: tuple[int | str, ...] = ()
    for start in range(len(taken)):
        if taken[start] == "unit":
            continue
        part = _without_units(taken[start:])
        if part and any(isinstance(t, str) and t in "+-*/" for t in part) and _tree(part) is not None:
            best = part
            break
    return best


def _without_units(tokens: list[int | str]) -> tuple[int | str, ...]:
    """Without a currency sign before a number and up to two words behind one; () where more words stand between."""
    kept: list[int | str] = []
    words = 0
    for token in tokens:
        if token == "unit":
            words += 1
            if words > 2:
                return ()
            continue
        words = 0
        kept.append(token)
    return tuple(kept)


def _tree(tokens: tuple[int | str, ...]):
    """(sign, left, right) with multiplication and division before addition and subtraction; None where it is no expression."""

    def expression(at: int, signs: str):
        below = (lambda place: expression(place, "*/")) if signs == "+-" else atom
        tree, at = below(at)
        while tree is not None and at < len(tokens) and isinstance(tokens[at], str) and tokens[at] in signs:
            right, after = below(at + 1)
            tree, at = (None, after) if right is None else ((tokens[at], tree, right), after)
        return tree, at

    def atom(at: int):
        if at < len(tokens) and isinstance(tokens[at], int):
            return (tokens[at],), at + 1
        if at < len(tokens) and tokens[at] == "(":
            tree, after = expression(at + 1, "+-")
            if after < len(tokens) and tokens[after] == ")":
                return tree, after + 1
        return None, at

    tree, end = expression(0, "+-")
    return tree if end == len(tokens) else None


def _value(left: tuple[int | str, ...], values: dict[int, Fraction]) -> Fraction | None:
    """None for a division by zero."""

    def of(tree) -> Fraction:
        if len(tree) == 1:
            return values[tree[0]]
        sign, a, b = tree[0], of(tree[1]), of(tree[2])
        return a + b if sign == "+" else a - b if sign == "-" else a * b if sign == "*" else a / b

    try:
        return of(_tree(left))
    except ZeroDivisionError:
        return None


def _operands(equation: Equation) -> Iterator[int]:
    return (token for token in equation.left if isinstance(token, int))


def _other(old: str, draw: random.Random) -> Fraction:
    """Another number of as many digits."""
    digits = re.sub(r"[-,.]", "", old)
    places = len(old.partition(".")[2])
    value, low, high = int(digits), 10 ** (len(digits) - 1) if len(digits) > 1 else 0, 10 ** len(digits) - 1
    reach = max(9, value // 2)
    changed = value
    while changed == value:
        changed = draw.randint(max(min(low, value), value - reach), min(high, value + reach))
    return Fraction(-changed if old[0] == "-" and changed else changed, 10**places)


def _writable(value: Fraction, like: str) -> Fraction:
    """The value itself where it ends within six places, else rounded to two."""
    places = len(like.partition(".")[2])
    exact = any((value * 10**count).denominator == 1 for count in range(places, 7))
    return value if exact else Fraction(round(value * 100), 100)


def _format(value: Fraction, like: str) -> str:
    """The value with at least the places of ``like``, its thousands commas and its leading zeros."""
    places = len(like.partition(".")[2])
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(int(abs(value) * 10**places)).rjust(places + 1, "0")
    whole, decimals = (digits[:-places], digits[-places:]) if places else (digits, "")
    if like[0] == "0" and "." not in like:
        whole = whole.rjust(len(like), "0")
    if "," in like:
        whole = f"{int(whole):,}"
    return ("-" if value < 0 else "") + whole + (f".{decimals}" if decimals else "")
