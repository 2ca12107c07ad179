"""matplotlib without its surroundings: one kind of canvas, whatever backend the environment names.

A notebook sets MPLBACKEND for all it starts, and matplotlib refuses to be imported where it can't find that backend. A
picture that goes to a file needs none, so the variable is out of the way while matplotlib is imported, and `pyplot`,
which would choose a backend, is never used. What matplotlib logs about its own folders is no news of ours.
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
    """Import matplotlib, half a second: before work whose result it shall draw, not after.

    Raises:
        ImportError: it can't be imported.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with _without(BACKEND):
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401


@contextmanager
def _without(name: str) -> Iterator[None]:
    """The environment without one of its variables."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def new_figure(width: float, height: float, **given: Any) -> Figure:
    """An empty figure of so many inches; `given` goes to matplotlib's `Figure`."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **given)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes. A glyph that no font has is drawn as a box, and not spoken of."""
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format="png")
    return stream.getvalue()
