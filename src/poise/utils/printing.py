"""Printing to stdout and stderr: safe for any terminal and any encoding.

File names, recipe keys, column names, class names and errors of user code may contain anything. Characters that a
terminal would interpret (escape sequences, carriage returns, bidirectional controls) are printed as visible escapes;
`utils/console.py` does the same for coloured text. Characters that the encoding of stdout or stderr lacks (ASCII,
Latin-1, cp1252) are replaced by a plain word or an escape, so that no command fails on them.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

CONTROL_CHARACTERS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escape sequences begin with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line and paragraph separators, byte order mark, annotations
    "\U000e0000-\U000e007f"  # tags, which are invisible
    "\ud800-\udfff]"  # lone surrogates: bytes of a file name that are not UTF-8
)
"""Characters that a terminal interprets, or cannot show, instead of printing them."""

ASCII_SUBSTITUTES = {
    "±": "+/-",
    "·": ".",
    "┊": "|",
    "●": "o",
    "²": "^2",
    "‖": "|",
    "∇": "grad ",
    "−": "-",
    "–": "-",
    "…": "...",
}
"""Substitutes for poise's own symbols where an encoding lacks them; Greek letters are replaced by their names."""

ERROR_HANDLER = "poise.replacing"
"""The name under which `replace_unencodable` is registered as an error handler for codecs."""


def printable(text: str, *, keep_newlines: bool = False) -> str:
    r"""`text` with every control character as a visible escape: ESC as `\x1b`, a bidirectional control as `\u202e`.

    Args:
        text: any text.
        keep_newlines: whether newlines are kept.
    """
    return CONTROL_CHARACTERS.sub(lambda match: "\n" if keep_newlines and match[0] == "\n" else _escape(match[0]), text)


def one_line(text: str) -> str:
    """`text` with each run of spaces, tabs and newlines as one space, as for an error message of several lines."""
    return re.sub(r"(?:[ \t]|\r?\n)+", " ", text).strip()


def shorten_list(words: Sequence[str], most: int = 6) -> str:
    """The words, separated by commas; if there are more than `most`, the first ones and the number of the others."""
    if len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} others"


def count_noun(n: int, singular: str, plural: str = "") -> str:
    """A number with its noun: `1 image`, `2,000 images`; `plural` if the plural is not the singular with an "s"."""
    return f"{n:,} {agree(n, singular, plural or f'{singular}s')}"


def describe_type(value: object) -> str:
    """The type of a value that should be something else: `a value of the type Tensor`; None is `None`."""
    return "None" if value is None else f"a value of the type {type(value).__name__}"


def agree(n: int, singular: str, plural: str) -> str:
    """The form of a word that agrees with a number: `agree(n, "is", "are")`."""
    return singular if n == 1 else plural


def _escape(char: str) -> str:
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(char) or ascii(char)[1:-1]


def print_line(sentence: str, *, err: bool = False) -> None:
    """Print one line and flush, to stderr if `err`, else to stdout."""
    _write(printable(sentence), err=err)


def overwrite_line(text: str, width: int) -> None:
    """Overwrite the current line of stdout, which is `width` characters long, without ending it."""
    print("\r" + printable(text).ljust(width), end="", flush=True)


def print_error(line: str) -> None:
    """Print an error or a warning as one line to stderr, if stderr exists and can still be written to."""
    if sys.stderr is not None:  # print(file=None) would write to stdout
        with suppress(OSError, ValueError):
            print_line(f"poise: {one_line(line)}", err=True)


def print_text(text: str, *, err: bool = False) -> None:
    """Print text of several lines."""
    _write(printable(text.rstrip("\n"), keep_newlines=True), err=err)


def print_json(value: Any) -> None:
    """Print a value as JSON to stdout, in ASCII, so that it is safe for every encoding and terminal.

    Raises:
        ValueError: `value` contains a number that is not finite, which JSON does not allow.
    """
    _write(json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f"), err=False)


def _write(text: str, *, err: bool) -> None:
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """An error handler for codecs: the replacement for characters that can't be encoded, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(char: str) -> str:
    if char in ASCII_SUBSTITUTES:
        return ASCII_SUBSTITUTES[char]
    name = unicodedata.name(char, "")
    return name.split()[-1].lower() if re.fullmatch(r"GREEK \w+ LETTER \w+", name) else ascii(char)[1:-1]


codecs.register_error(ERROR_HANDLER, replace_unencodable)


def make_streams_lenient() -> None:
    """Let stdout and stderr replace characters that they can't encode."""
    for stream in (sys.stdout, sys.stderr):
        make_stream_lenient(stream)


def make_stream_lenient(stream: TextIO | None) -> None:
    """The same for one stream. A stream that does not wrap bytes (a notebook's), or None, is left unchanged."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ERROR_HANDLER)


def shape_text(shape: Sequence[int], parts: Sequence[int] = ()) -> str:
    """The shape of a sample as "3x32x32", or "1+3x32x32" if it consists of images of two domains.

    Args:
        shape: the shape.
        parts: the number of channels of each domain; empty or one for an ordinary sample.
    """
    first, *rest = shape
    return "x".join(("+".join(map(str, parts or (first,))), *map(str, rest)))
