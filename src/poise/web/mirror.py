"""Keeps the mirror of a folder in an object store up to date while the live page shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from poise.errors import PoiseError
from poise.runs.remote_runs import ON_DEMAND, RUNS
from poise.utils.remote import RemoteFolder

REFRESH_SECONDS = 10.0
"""The seconds between the end of one look at the store and the next. A look lists all files of the folder."""


class MirrorRefresher:
    """Looks for news in the store, in a thread, until it is closed.

    A store that can't be reached is asked again: the page goes on showing what was read before.

    Args:
        remote: the folder.
        notify: called with a line of text when the store can't be read any more, and when it can again.
        seconds: the time between two looks.
    """

    def __init__(self, remote: RemoteFolder, notify: Callable[[str], None], seconds: float = REFRESH_SECONDS) -> None:
        self.remote, self.notify, self.seconds = remote, notify, seconds
        self._closed = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking, without waiting for a look that has begun."""
        self._closed.set()

    def look(self) -> None:
        """Look once."""
        try:
            self.remote.refresh(RUNS, ON_DEMAND)
        except PoiseError as error:
            if not self._failing:
                self.notify(f"{error}; the page shows what was read before, and the store is asked again")
            self._failing = True
            return
        if self._failing:
            self.notify(f"{self.remote.url}: can be read again")
        self._failing = False

    def _run(self) -> None:
        while not self._closed.wait(self.seconds):
            self.look()
