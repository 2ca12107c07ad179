"""Numbers as people and libraries print them: decimal commas, digits in groups of three, printed tensors, per cent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Separator = Literal[".", ",", "unclear"]
"""The decimal separator of a text. It is unclear if the text has numbers such as 1,386 and none that tells what the
comma means."""

SPECIAL = r"[-+]?nan|[-+]?inf(?:inity)?"
TOKEN = (
    r"[-+]?(?:\d+(?:[.,]\d+)*(?:\.(?=[eE][-+]?\d))?|\.\d+)(?:[eE][-+]?\d+)?"
    rf"(?!\w|[.,]\d)|(?:{SPECIAL})(?!\w)"
)
"""A number with all its points and commas, so that no part of a number is taken for the whole."""

NUMBER = rf"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|{SPECIAL}"
WRAPPED = re.compile(
    r"(?:\b(?:\w+\.)*(?:tensor|array|float\d*|float_|int\d+|parameter|variable)\(|<tf\.Tensor:[^<>]{0,200}?numpy=)"
    rf"[\[\s]*({NUMBER})[\]\s]*(?:,(?:[^()]|\([^()]*\))*)?[)>]",
    re.IGNORECASE,
)
"""A scalar as libraries print it: `tensor(0.69, device='cuda:0')`, `np.float32(0.69)`, `array(0.69, dtype=int8)`."""

_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+),\d+(?:[eE][-+]?\d+)?")
_GROUPED_BY_POINTS = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
_DECIMAL_POINT = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")


def decimal_separator(numbers: Iterable[str]) -> Separator:
    """The decimal separator of a text, from all its numbers.

    1,234 is digits in groups of three, unless other numbers, such as 0,693 or 12,5, show that commas are decimal.
    """
    commas = points = unclear_points = grouped = 0
    for number in numbers:
        if "," in number:
            if _GROUPED.fullmatch(number):
                grouped += 1
                points += "." in number
            else:
                commas += _DECIMAL_COMMA.fullmatch(number) is not None
        elif "." in number:
            points += _GROUPED_BY_POINTS.fullmatch(number) is None
            unclear_points += 1
    if commas > points:
        return ","
    return "unclear" if grouped and not points and not unclear_points else "."


def is_grouped(number: str) -> bool:
    """Whether it may be digits in groups of three, or have three digits after a decimal comma: 1,386."""
    return _GROUPED.fullmatch(number) is not None


def parse_number(cell: str, separator: Separator = ".") -> float | None:
    """The number in a cell, or None; it may have digits in groups of three, or be printed by a library."""
    cell = WRAPPED.sub(r"\1", cell.strip())
    if separator == "," and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(".", "").replace(",", ".")
    elif (separator == "," and _GROUPED_BY_POINTS.fullmatch(cell)) or _GROUPED.fullmatch(cell):
        cell = re.sub(r"[.,](?=\d{3}(?!\d))", "", cell) if separator == "," else cell.replace(",", "")
    try:
        return float(cell)
    except ValueError:
        return None
