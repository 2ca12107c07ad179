"""The worker of the playground, a process of its own: it plays what the page asks for, and says how it goes.

    python -m poise.playground FOLDER

Commands are lines of JSON on stdin, `{"command": NAME, "arguments": {...}}` with the arguments of `commands.py`.
Replies are lines on stdout: the state of the game whenever it changes, and a few times per second while it is played.
An error of a game, whatever it is, becomes one sentence in the reply. The process ends when stdin is closed, so it does
not survive the one that started it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from poise.core.types import Side
from poise.errors import PoiseError, Stopped
from poise.playground.commands import Command, Paced, Resume, Start, Step
from poise.playground.games import Games, open_games
from poise.playground.options import MAX_SECONDS, MAX_STEPS
from poise.playground.pace import Pace
from poise.utils.printing import one_line

MAX_PAUSE = 1800.0
"""The seconds after which a paused game ends."""

INTERVAL = 0.2
"""The seconds between two replies while a game is played."""

MAX_IDLE = 600.0
"""The seconds without a game after which the worker ends."""

POLL = 0.5
"""The seconds after which a pause looks for signals."""


class Received(NamedTuple):
    """A command and its arguments."""

    name: str
    arguments: Command


GetCommand = Callable[[float | None], Received | None]
"""Waits for at most so many seconds (None: for ever) and returns the next command, or None if there is none.

Raises EOFError if there will be no more.
"""


class Worker:
    """Plays one game, or a pair, after the other.

    Args:
        folder: the folder of the run folders.
        get_command: see `GetCommand`.
        reply: is given each reply.
    """

    def __init__(self, folder: Path, get_command: GetCommand, reply: Callable[[dict[str, Any]], None]) -> None:
        self.folder, self.get_command, self.reply = folder, get_command, reply

    def run(self) -> None:
        """Play what is asked for, until nothing has been for a while.

        Raises:
            EOFError: there are no more commands; the game, if there was one, is stopped.
            Stopped: a signal has arrived; the game is stopped.
        """
        while (received := self.get_command(MAX_IDLE)) is not None:
            upcoming = Play(self, received.arguments) if isinstance(received.arguments, Start) else None
            while upcoming is not None:
                upcoming = upcoming.play()


class Play:
    """One start: the games from their first step until they end.

    Args:
        worker: the worker.
        start: what the learner chose.
        paused: whether the games are paused before their first step.
    """

    def __init__(self, worker: Worker, start: Start, *, paused: bool = False) -> None:
        self.worker, self.start, self.paused = worker, start, paused
        self.games, self.pace = Games(), Pace(start.speed)
        self._told = 0.0

    def play(self) -> Play | None:
        """Play until the end, and reply how it came about.

        Returns:
            What is to be played next, if the learner has reset the games.

        Raises:
            EOFError, Stopped: see `Worker.run`.
        """
        self._tell("starting")
        message, upcoming = "the playground was closed", None
        try:
            with open_games(self.start, self.worker.folder) as self.games:
                self.pace = Pace(self.start.speed)
                if self.paused:
                    self.pace.pause()
                message = self._play()
            if not message:
                upcoming = Play(self.worker, self._start_again(), paused=self.pace.paused)
        except (EOFError, Stopped):
            raise
        except PoiseError as error:
            message = str(error)
        except Exception as error:  # whatever it is, it must not end the worker
            message = one_line(f"internal error: {type(error).__name__}: {error}")
        finally:
            self.pace.pause()
            if upcoming is None:
                self._tell("ended", message)
        return upcoming

    def _start_again(self) -> Start:
        return self.start.model_copy(update={"speed": self.pace.speed})

    def _play(self) -> str:
        """Make steps and obey commands; returns the reason for the end, empty for a reset."""
        self._tell(self._state)
        while not self.games.ended:
            if self.pace.seconds >= MAX_SECONDS:
                return f"ended after {MAX_SECONDS // 60} minutes of play, the limit of the playground"
            if self.pace.seconds_paused > MAX_PAUSE:
                return f"ended after a pause of {MAX_PAUSE / 60:.0f} minutes"
            received = self.worker.get_command(POLL if self.pace.paused else self.pace.wait)
            if received is not None and isinstance(received.arguments, Paced):
                self.pace.speed = received.arguments.speed or self.pace.speed
            if received is not None and received.name in ("stop", "reset"):
                return "" if received.name == "reset" else "stopped"
            if received is not None:
                self._obey(received)
            elif self.pace.paused:
                self.games.check_signals()
            else:
                self._step()
        return f"ended after {MAX_STEPS:,} steps, the limit of the playground"

    def _obey(self, received: Received) -> None:
        arguments = received.arguments
        if received.name == "pause":
            self.pace.pause()
        elif isinstance(arguments, Resume):
            self.games.exclude(self.pace.seconds_paused)
            self.pace.resume()
        elif isinstance(arguments, Step):  # of a pause, which ends and begins again with it
            self.games.exclude(self.pace.seconds_paused)
            self.pace.resume()
            self.pace.pause()
            self.games.step(None if arguments.player == "both" else Side(arguments.player), log_now=True)
        self._tell(self._state)

    def _step(self) -> None:
        self.games.step()
        self.pace.stepped()
        if self.pace.seconds - self._told >= INTERVAL:
            self._tell(self._state)

    @property
    def _state(self) -> str:
        return "paused" if self.pace.paused else "running"

    def _tell(self, state: str, message: str = "") -> None:
        self._told = self.pace.seconds
        self.worker.reply(
            {
                "state": state,
                "runs": self.games.runs,
                "step": self.games.steps,
                "max_steps": MAX_STEPS,
                "max_seconds": MAX_SECONDS,
                "seconds": round(self.pace.seconds, 1),
                "seed": self.start.seed,
                "speed": self.pace.speed,
                "games": [game.model_dump() for game in self.start.games],
                "message": message,
            }
        )
