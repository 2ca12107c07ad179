"""Coloured text and tables for people: a rich console that takes every word for a word.

Nothing is read as markup (a class may be called `[bold]`), no `:name:` turns into a picture, and what a terminal would
obey is escaped on its way out (see `utils/printing.py`). Colours are given by `styled`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from poise.utils.printing import printable

PIPED = 120
"""Columns where nobody looks and no width is known: wide enough that tables keep to one line for each row."""


class TerminalConsole(Console):
    """stdout or stderr, for people.

    Args:
        err: whether it is stderr.
        piped: its width where it is no terminal.
        given: anything else that rich's console takes.
    """

    def __init__(self, *, err: bool = False, piped: int = PIPED, **given: Any) -> None:
        super().__init__(stderr=err, markup=False, emoji=False, highlight=False, **given)
        if not self.is_terminal and "width" not in given:
            self.width = piped

    def on_broken_pipe(self) -> None:
        """Fall silent where nobody reads any more; rich would end the process, whosever it is."""
        self.quiet = True

    def render_str(self, text: str, **given: Any) -> Text:
        """Text as it is; escaped before it is laid out, so that columns are as wide as what is seen."""
        return super().render_str(printable(text, lines=True), **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is sent to the terminal. Only rich's own control sequences go through as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))


def styled_text(*parts: str | tuple[str, str]) -> Text:
    """A text of words, some of them with a style: `styled(("warning", "yellow"), " ", name)`."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((printable(words, lines=True), style) for words, style in pairs))
