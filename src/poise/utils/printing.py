"""All text that poise prints goes out here: no name can steer the terminal, and no encoding can end a command.

File names, recipe keys, column names, class names and the errors of the user's own code are not ours. What in them a
terminal would obey (escape sequences, a carriage return, marks that turn the direction of writing) is printed as a
visible escape. `utils/console.py` does the same for coloured text. What stdout or stderr can't encode is replaced by
a plain word or an escape, so that a machine in ASCII, Latin-1 or cp1252 gets all figures.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
import unicodedata
from contextlib import suppress
from typing import Any, TextIO

OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escape sequences begin with one of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions of writing
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # ends of lines, byte order mark, annotations
    "\U000e0000-\U000e007f"  # tags, which nobody sees
    "\ud800-\udfff]"  # half a character: bytes of a file name that are no UTF-8
)
"""What a terminal would obey, or could not show, instead of printing it."""

PLAIN = {"±": "+/-", "·": ".", "┊": "|", "●": "o", "²": "^2", "‖": "|", "∇": "grad ", "−": "-", "–": "-", "…": "..."}
"""Our own signs, where a stream can't encode them; Greek letters are called by their names."""

REPLACING = "poise.replacing"
"""The name of `replaced` as an error handler of a codec."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with every control character as a visible escape: ESC as `\x1b`, a change of direction as `\u202e`.

    Args:
        text: whoever wrote it.
        lines: whether newlines are meant and stay.
    """
    return OBEYED.sub(lambda found: "\n" if lines and found[0] == "\n" else _escape(found[0]), text)


def one_line(text: str) -> str:
    """`text` with runs of spaces, tabs and newlines as one space: an error from elsewhere may have several lines."""
    return re.sub(r"(?:[ \t]|\r?\n)+", " ", text).strip()


def count_noun(n: int, thing: str, things: str = "") -> str:
    """How many: `1 picture`, `2,000 pictures`; `things` is the plural where an "s" does not make it."""
    return f"{n:,} {agree(n, thing, things or f'{thing}s')}"


def agree(n: int, one: str, many: str) -> str:
    """The word that goes with a number: `agreeing(n, "is", "are")`."""
    return one if n == 1 else many


def _escape(char: str) -> str:
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(char) or ascii(char)[1:-1]


def say(sentence: str, *, err: bool = False) -> None:
    """Print one line at once, on stderr if `err`."""
    _write(printable(sentence), err=err)


def say_over(text: str, width: int) -> None:
    """Print one line on stdout over the last one, which was `width` characters long, and stay on it."""
    print("\r" + printable(text).ljust(width), end="", flush=True)


def print_error(line: str) -> None:
    """Print an error or a warning as one line on stderr, if there is one and it can still be written to."""
    if sys.stderr is not None:  # print(file=None) would go to stdout
        with suppress(OSError, ValueError):
            say(f"poise: {one_line(line)}", err=True)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print text whose newlines are meant."""
    _write(printable(text.rstrip("\n"), lines=True), err=err)


def say_json(value: Any) -> None:
    """Print a value as JSON on stdout: ASCII alone, so that every stream takes it and no terminal obeys it.

    Raises:
        ValueError: a number in it is not finite, which JSON can't say.
    """
    _write(json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f"), err=False)


def _write(text: str, *, err: bool) -> None:
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def replaced(error: UnicodeError) -> tuple[str, int]:
    """What stands in a stream for characters that it can't encode, and where the text goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(char: str) -> str:
    if char in PLAIN:
        return PLAIN[char]
    name = unicodedata.name(char, "")
    return name.split()[-1].lower() if re.fullmatch(r"GREEK \w+ LETTER \w+", name) else ascii(char)[1:-1]


codecs.register_error(REPLACING, replaced)


def make_streams_lenient() -> None:
    """Let stdout and stderr replace what they can't encode, where they are text over bytes."""
    for stream in (sys.stdout, sys.stderr):
        make_stream_lenient(stream)


def make_stream_lenient(stream: TextIO | None) -> None:
    """The same for one of them; a stream of another sort, a notebook's or none at all, is left as it is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=REPLACING)
