"""Plots with matplotlib that go to files and are independent of the configured backend.

A notebook sets MPLBACKEND for its child processes, and matplotlib can't be imported where that backend is missing. A
plot in a file needs no backend, so the variable is unset while matplotlib is imported, and `pyplot`, which would choose
a backend, is not used. What matplotlib logs about its own folders is suppressed.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKEND = "MPLBACKEND"


def import_matplotlib() -> None:
    """Import matplotlib, which takes half a second.

    Called before the work whose result is plotted, so that a missing matplotlib is noticed before and not after it.

    Raises:
        ImportError: it can't be imported.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with _unset_variable(BACKEND):
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401


@contextmanager
def _unset_variable(name: str) -> Iterator[None]:
    """Unset an environment variable in the block."""
    previous = os.environ.pop(name, None)
    try:
        yield
    finally:
        if previous is not None:
            os.environ[name] = previous


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """An empty figure.

    Args:
        width: in inches.
        height: in inches.
        options: further arguments of `matplotlib.figure.Figure`.
    """
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file. A glyph that no font has is drawn as a box, without a warning."""
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format="png")
    return stream.getvalue()


def as_svg(figure: Figure) -> bytes:
    """The figure as the bytes of an SVG file; equal figures give equal bytes. Text stays text, in the reader's font."""
    from matplotlib import rc_context

    stream = BytesIO()
    options = {"svg.fonttype": "none", "svg.hashsalt": "poise"}
    with warnings.catch_warnings(), rc_context(options):
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
