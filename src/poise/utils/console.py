"""Coloured text and tables on a terminal: a rich console that prints every text literally.

No text is read as markup (a class may be called `[bold]`) or as an emoji code (`:name:`), and control characters are
escaped (see `utils/printing.py`). Colours are given by `styled_text`. With the environment variable NO_COLOR, not even
bold text is printed, and nothing but text where the output is not a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from poise.utils.printing import printable

PIPED_WIDTH = 120
"""The width in columns if the output is not a terminal: wide enough for one line per row of a table."""


def has_styles() -> bool:
    """Whether a terminal may show colours and bold text: not if NO_COLOR is set and not empty (no-color.org)."""
    return not os.environ.get("NO_COLOR")


class TerminalConsole(Console):
    """A console for stdout or stderr.

    Args:
        err: whether it prints to stderr.
        piped_width: its width if the output is not a terminal.
        options: further arguments of `rich.console.Console`.
    """

    def __init__(self, *, err: bool = False, piped_width: int = PIPED_WIDTH, **options: Any) -> None:
        if not has_styles():
            options["color_system"] = None  # rich's own rule for NO_COLOR keeps bold and dim text
        super().__init__(stderr=err, markup=False, emoji=False, highlight=False, **options)
        if not self.is_terminal and "width" not in options:
            self.width = piped_width

    def on_broken_pipe(self) -> None:
        """Stop printing when the reader is gone. rich would exit the process, even that of a library user."""
        self.quiet = True

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, escaped before the layout is computed, so that the columns fit what is printed."""
        return super().render_str(printable(text, keep_newlines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print. Only rich's own control sequences are passed on unescaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep_newlines=True))


def styled_text(*parts: str | tuple[str, str]) -> Text:
    """A text made of strings and (string, style) pairs: `styled_text(("warning", "yellow"), " ", name)`."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((printable(text, keep_newlines=True), style) for text, style in pairs))
