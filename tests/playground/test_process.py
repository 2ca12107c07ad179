"""The worker as a process: lines in, lines out, and its end when the process that started it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from poise.playground.options import DEFAULT_GAME
from poise.runs.folder import RunFolder

WORKER = [sys.executable, "-m", "poise.playground"]
GAME = DEFAULT_GAME | {"data": "spiral", "width": 4, "batch": 8}


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def line(command: str, **arguments: Any) -> str:
    return json.dumps({"command": command, "arguments": arguments}) + "\n"


def wait_for(replies: IO[str] | None, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first reply that is wanted; the last one if stdout ends before."""
    reply: dict[str, Any] = {}
    for text in replies or ():
        reply = json.loads(text)
        if wanted(reply):
            break
    return reply


def test_a_process_plays_what_its_lines_say(tmp_path: Path) -> None:
    with process([*WORKER, str(tmp_path)]) as worker:
        assert worker.stdin is not None

        def send(text: str) -> None:
            assert worker.stdin is not None
            worker.stdin.write(text)
            worker.stdin.flush()

        send("no JSON\n" + line("fly") + line("start", games=[]) + line("start", games=[GAME], seed=2))
        wait_for(worker.stdout, lambda reply: reply["step"] > [0])
        send(line("pause"))
        paused = wait_for(worker.stdout, lambda reply: reply["state"] == "paused")
        send(line("step", player="g"))
        assert wait_for(worker.stdout, lambda _: True)["step"] == [paused["step"][0] + 1]
        send(line("stop"))
        ended = wait_for(worker.stdout, lambda reply: reply["state"] == "ended")
        assert ended["message"] == "stopped"
        worker.stdin.close()
        assert worker.wait(20) == 0
        assert worker.stderr is not None
        errors = worker.stderr.read().splitlines()
    assert errors[:2] == ["poise: playground: stdin: not a command"] * 2
    assert "games: must not be empty" in errors[2]
    assert len(errors) == 3
    assert RunFolder(tmp_path / ended["runs"][0]).read_info()["state"] == "stopped"


PARENT = """
import subprocess, sys
worker = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, start_new_session=True)
worker.stdin.write(sys.argv[1].encode())
worker.stdin.flush()
worker.wait()
"""


def test_a_process_ends_with_a_parent_that_is_killed_and_saves_the_game(tmp_path: Path) -> None:
    with process(
        [sys.executable, "-c", PARENT, line("start", games=[GAME, GAME], seed=2), *WORKER, str(tmp_path)]
    ) as parent:
        wait_for(parent.stdout, lambda reply: reply["step"] > [0])
        parent.kill()
        ended = wait_for(parent.stdout, lambda _: False)  # to the end of stdout, which the worker has too
    assert (ended["state"], ended["message"]) == ("ended", "the playground was closed")
    assert [RunFolder(tmp_path / run).read_info()["state"] for run in ended["runs"]] == ["stopped", "stopped"]
