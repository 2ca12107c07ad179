"""The worker with commands that come at chosen moments: what it plays, replies, writes and survives."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from poise.errors import DiskError, Stopped
from poise.playground import games, worker
from poise.playground.commands import parse_arguments
from poise.playground.options import DEFAULT_GAME
from poise.playground.pace import Pace
from poise.playground.worker import Received, Worker
from poise.runs.folder import RunFolder
from poise.runs.frames import read_frames, restore_points
from poise.runs.run import Run
from poise.training.trainer import Trainer

SMALL = DEFAULT_GAME | {"data": "spiral", "width": 4, "batch": 8}
START = {"games": [SMALL], "seed": 1, "speed": 1000}
REFUSED = START | {"games": [SMALL, SMALL | {"objective": "wasserstein", "tricks": ["soft_labels"]}]}
Line = tuple[str, dict[str, Any]]


class Script:
    """Gives commands at chosen moments.

    Args:
        lines: in how many turns of a game there is no command, and the command that comes then; None stands for the end
            of stdin.
    """

    def __init__(self, *lines: tuple[int, Line | None]) -> None:
        self.lines = list(lines)
        self.replies: list[dict[str, Any]] = []
        self.waited = 0

    def __call__(self, seconds: float | None) -> Received | None:
        after, line = self.lines[0]
        if self.waited < after and seconds != worker.MAX_IDLE:
            self.waited += 1
            return None
        self.waited = 0
        del self.lines[0]
        if line is None:
            raise EOFError
        return Received(line[0], parse_arguments(line[0], json.dumps(line[1]).encode()))

    def play(self, folder: Path) -> list[dict[str, Any]]:
        with pytest.raises(EOFError):
            Worker(folder, self, self.replies.append).run()
        return self.replies

    @property
    def last(self) -> dict[str, Any]:
        return self.replies[-1]


def play(folder: Path, *lines: tuple[int, Line | None]) -> list[dict[str, Any]]:
    return Script(*lines, (0, None)).play(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows without what depends on the clock."""
    found = RunFolder(folder).read_rows()
    for row in found:
        del row["seconds"], row["stats"]["time/images_per_second"]
    return found


def states(replies: list[dict[str, Any]]) -> list[str]:
    """The states in their order, without repetitions."""
    found = [reply["state"] for reply in replies]
    return [state for n, state in enumerate(found) if n == 0 or found[n - 1] != state]


def test_a_game_is_a_run_like_any_other(tmp_path: Path) -> None:
    replies = play(tmp_path, (0, ("start", START)), (45, ("stop", {})))
    assert states(replies) == ["starting", "running", "ended"]
    (name,) = replies[-1]["runs"]
    assert name.endswith("-a")
    assert replies[-1] | {"seconds": 0} == {
        "state": "ended",
        "runs": [name],
        "step": [45],
        "max_steps": 20_000,
        "max_seconds": 900,
        "seconds": 0,
        "seed": 1,
        "speed": 1000,
        "games": [SMALL],
        "message": "stopped",
    }
    folder = RunFolder(tmp_path / name)
    assert [row["step"] for row in folder.read_rows()] == [20, 40]
    assert folder.read_info()["state"] == "stopped"
    assert Run(tmp_path / name).sample(3).shape == (3, 2)


def test_the_same_game_twice_from_one_seed_is_the_same_to_the_bit(tmp_path: Path) -> None:
    start = START | {"games": [SMALL, SMALL]}
    a, b = play(tmp_path, (0, ("start", start)), (41, ("stop", {})))[-1]["runs"]
    assert rows(tmp_path / a) == rows(tmp_path / b)
    alone = play(tmp_path / "alone", (0, ("start", START)), (41, ("stop", {})))[-1]["runs"][0]
    assert rows(tmp_path / a) == rows(tmp_path / "alone" / alone)


def test_with_another_objective_the_first_move_of_d_is_the_same_and_that_of_g_is_not(tmp_path: Path) -> None:
    start = START | {"games": [SMALL, SMALL | {"objective": "minimax"}]}
    lines = (0, ("start", start)), (0, ("step", {"player": "d"})), (0, ("step", {"player": "g"})), (0, ("stop", {}))
    a, b = (rows(tmp_path / name) for name in play(tmp_path, *lines)[-1]["runs"])
    assert a[0] == b[0]
    assert a[1]["stats"]["g/adversarial"] != b[1]["stats"]["g/adversarial"]


def test_single_moves_are_logged_at_once_and_leave_the_game_paused(tmp_path: Path) -> None:
    moves = [(0, ("step", {"player": player})) for player in ("d", "g", "both")]
    replies = play(tmp_path, (0, ("start", START)), (2, ("pause", {})), *moves, (5, ("stop", {})))
    assert states(replies) == ["starting", "running", "paused", "ended"]
    assert replies[-1]["step"] == [5]
    moved = [
        {name[0] for name in row["stats"] if name.endswith("/adversarial")}
        for row in rows(tmp_path / replies[-1]["runs"][0])
    ]
    assert moved == [{"d", "g"}, {"g"}, {"d", "g"}]  # the first row has the two steps before the pause as well


def test_a_single_step_begins_the_pause_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause before it and that after it count once each, or the next row would have an impossible speed."""
    now, paused = [0.0], list[float]()
    monkeypatch.setattr(worker, "Pace", lambda speed: Pace(speed, lambda: now[0]))
    monkeypatch.setattr(games.Games, "exclude", lambda self, seconds: paused.append(seconds))
    monkeypatch.setattr(games.Games, "check_signals", lambda self: now.__setitem__(0, now[0] + 1.0))
    step = (5, ("step", {"player": "both"}))
    lines = (2, ("pause", {})), step, step, (3, ("resume", {})), (1, ("stop", {}))
    replies = play(tmp_path, (0, ("start", START)), *lines)
    assert paused == [5.0, 5.0, 3.0]
    assert states(replies) == ["starting", "running", "paused", "running", "ended"]


def test_a_single_move_is_a_frame_in_which_only_the_mover_s_part_changes(tmp_path: Path) -> None:
    moves = [(0, ("step", {"player": player})) for player in ("d", "g")]
    replies = play(tmp_path, (0, ("start", START)), (0, ("pause", {})), *moves, (0, ("stop", {})))
    frames = read_frames(tmp_path / replies[-1]["runs"][0] / "frames.bin")
    assert frames is not None
    assert frames.records["step"].tolist() == [0, 1, 2]
    before, after_d, after_g = (
        {name: frame[name].tolist() for name in ("points", "scores")} for frame in frames.records
    )
    assert before["points"] == after_d["points"] != after_g["points"]
    assert before["scores"] != after_d["scores"] == after_g["scores"]


def test_a_speed_can_be_changed_and_a_pause_ended(tmp_path: Path) -> None:
    lines = (1, ("pause", {})), (9, ("resume", {"speed": 500})), (2, ("resume", {})), (1, ("stop", {}))
    replies = play(tmp_path, (0, ("start", START)), *lines)
    assert states(replies) == ["starting", "running", "paused", "running", "ended"]
    assert (replies[-1]["step"], replies[-1]["speed"]) == ([4], 500)


@pytest.mark.parametrize("speed", [None, 3])
def test_a_reset_begins_again_in_new_folders_and_a_paused_game_stays_paused(tmp_path: Path, speed: float) -> None:
    replies = play(
        tmp_path,
        (0, ("start", START)),
        (3, ("reset", {})),
        (2, ("pause", {})),
        (0, ("resume", {"speed": 400})),
        (0, ("pause", {})),
        (0, ("reset", {"speed": speed} if speed else {})),
        (5, ("stop", {})),
    )
    told = "starting running starting running paused running paused starting paused ended"
    assert states(replies) == told.split()
    assert (replies[-1]["step"], replies[-1]["speed"], replies[-1]["message"]) == ([0], speed or 400, "stopped")
    told = [reply["runs"] for reply in replies if reply["runs"]]
    changes = sum(after != before for before, after in pairwise(told))
    assert changes == 2, "a game that begins again is another run"
    (left,) = tmp_path.iterdir()
    assert ([left.name], RunFolder(left).read_info()["state"]) == (told[-1], "stopped")


def test_a_start_removes_the_games_before_and_nothing_else(tmp_path: Path) -> None:
    names = [play(tmp_path, (0, ("start", START)), (1, ("stop", {})))[-1]["runs"][0]]
    (tmp_path / names[0]).rename(tmp_path / "kept")
    (tmp_path / "20200101-000000-a").mkdir()
    (tmp_path / "20200101-000000-b").symlink_to(tmp_path / "kept")
    others = {"kept", "20200101-000000-a", "20200101-000000-b"}
    for lines in ([(0, ("start", START)), (1, ("stop", {}))], [(0, ("start", REFUSED))]):
        play(tmp_path, *lines)
        left = {path.name for path in tmp_path.iterdir()}
        assert others < left
        assert len(left - others) == 1
    game = tmp_path / (left - others).pop()
    with RunFolder(game).claim():
        play(tmp_path, (0, ("start", START)), (1, ("stop", {})))
    assert game.is_dir(), "another process trains it"


def test_a_worker_without_a_game_ends_after_a_while(tmp_path: Path) -> None:
    replies: list[dict[str, Any]] = []
    Worker(tmp_path, lambda seconds: None, replies.append).run()
    assert replies == []


def test_the_end_of_stdin_saves_the_game(tmp_path: Path) -> None:
    replies = play(tmp_path, (0, ("start", START)), (3, None))
    assert (replies[-1]["state"], replies[-1]["message"]) == ("ended", "the playground was closed")
    assert RunFolder(tmp_path / replies[-1]["runs"][0]).read_info()["state"] == "stopped"


def test_a_refused_recipe_is_its_own_sentence_and_writes_nothing(tmp_path: Path) -> None:
    replies = play(tmp_path, (0, ("start", REFUSED)), (0, ("start", START)), (1, ("stop", {})))
    assert [reply["message"] for reply in replies if reply["state"] == "ended"] == [
        "tricks.0: 'soft_labels' changes D's targets, but the objective 'wasserstein' has none; "
        "use objective 'non_saturating', or remove the trick",
        "stopped",
    ]
    assert len(list(tmp_path.iterdir())) == 1


def failing(error: Exception, name: str, step: int) -> Callable[..., None]:
    """`Trainer.step` that raises an error in one of two games."""
    make = Trainer.step

    def fail(trainer: Trainer, *args: Any, **options: Any) -> None:
        if trainer.done == step and trainer.folder.path.name.endswith(name):
            raise error
        make(trainer, *args, **options)

    return fail


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first line\nsecond line"), "internal error: ValueError: first line"),
        (DiskError("no space left on the device", where="rows.jsonl"), "rows.jsonl: no space left on the device"),
        (MemoryError(), "the device has too little memory, found batch 8"),
    ],
)
def test_an_error_of_one_game_is_a_sentence_and_saves_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, message: str
) -> None:
    monkeypatch.setattr(Trainer, "step", failing(error, name, 3))
    replies = play(tmp_path, (0, ("start", START | {"games": [SMALL, SMALL]})), (9, ("start", REFUSED)))
    ended = next(reply for reply in replies if reply["state"] == "ended")
    assert message in ended["message"]
    assert "\n" not in ended["message"]
    assert "soft_labels" in replies[-1]["message"], "the worker goes on"
    told = {run[-1]: RunFolder(tmp_path / run).read_info()["state"] for run in ended["runs"]}
    assert told == {"a": "stopped", "b": "stopped"} | {name: "failed"}


def test_divergence_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(trainer: Trainer, *args: Any, **options: Any) -> None:
        for player in trainer.state.game.players.values():
            player.weights[0].data.fill_(float("nan"))
        make(trainer, *args, **options)

    make = Trainer.step
    monkeypatch.setattr(Trainer, "step", spoil)
    replies = play(tmp_path, (0, ("start", START)), (30, None))
    assert "not finite" in replies[-1]["message"]
    assert RunFolder(tmp_path / replies[-1]["runs"][0]).read_info()["state"] == "failed"


def test_steps_and_seconds_and_pauses_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.playground.table.MAX_STEPS", 7)
    assert play(tmp_path, (0, ("start", START)), (20, None))[-1]["step"] == [7]
    monkeypatch.undo()
    monkeypatch.setattr(worker, "MAX_PAUSE", 0.0)
    replies = play(tmp_path, (0, ("start", START)), (2, ("pause", {})), (20, None))
    assert (replies[-1]["step"], replies[-1]["message"]) == ([2], "ended after a pause of 0 minutes")
    monkeypatch.setattr(worker, "MAX_SECONDS", 0)
    replies = play(tmp_path, (0, ("start", START)), (20, None))
    assert (replies[-1]["step"], replies[-1]["message"][:14]) == ([0], "ended after 0 ")


def test_a_signal_stops_a_game_even_in_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script((0, ("start", START)), (2, ("pause", {})), (9, None))
    checked = games.Games.check_signals

    def signalled(self: games.Games) -> None:
        self.open[0].trainer.signals.requested_by = "SIGTERM"
        checked(self)

    monkeypatch.setattr(games.Games, "check_signals", signalled)
    with pytest.raises(Stopped, match="SIGTERM"):
        Worker(tmp_path, script, script.replies.append).run()
    assert RunFolder(tmp_path / script.last["runs"][0]).read_info()["state"] == "stopped"


def test_a_drawing_becomes_an_image_that_is_dark_where_it_is_dense(tmp_path: Path) -> None:
    drawn = bytes(range(256)) * 16
    path = games.write_drawing(drawn, tmp_path / "drawings")
    assert path == games.write_drawing(drawn, tmp_path / "drawings")
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (64, 64))
        assert bytes(255 - value for value in image.tobytes()) == drawn


def test_a_drawn_density_is_played(tmp_path: Path) -> None:
    left_half = bytes(range(32)) + bytes(32)
    start = START | {"games": [SMALL | {"data": "density"}], "density": base64.b64encode(left_half * 64).decode()}
    run = play(tmp_path, (0, ("start", start)), (2, ("stop", {})))[-1]["runs"][0]
    frames = read_frames(tmp_path / run / "frames.bin")
    assert frames is not None
    x, y = restore_points(frames.header["real_points"], frames.region).T
    assert (x.max() < 0.01, x.min() > -2.01, y.min() < -1, y.max() > 1) == (True, True, True, True)
    assert (x > -1).mean() > 0.6  # denser towards the middle, where the bytes are larger
