"""Run folders that are damaged, edited, incomplete or used by two runs at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from poise.errors import DiskError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, checkpoint_folder, jsonl
from poise.runs.folder import EARLY_FILES, INFO_CHECKS, RunFolder
from poise.training import train as training
from poise.training import trainer
from poise.training.listener import NullListener, StartInfo
from poise.training.train import train
from poise.utils.system import system

Poise = Callable[..., Any]
MLP = {"kind": "mlp", "width": 4, "depth": 2}


def small(steps: int = 6, **more: Any) -> Recipe:
    table = {
        "name": "small",
        "steps": steps,
        "batch": 8,
        "data": {"kind": "ring"},
        "latent": {"kind": "gaussian", "dim": 2},
        "network": {"g": MLP, "d": MLP},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
        "tempo": {"kind": "ratio"},
        "log": {"rows": 1, "samples": 99, "saves": 2, "keep": 3, "sheet": 4},
        "measure": {"every": 2, "measures": ["coverage"], "n": 10},
        "monitor": {"threshold": {"past_its_best": 0.1}},  # the third measurement is as good as the first
    }
    return decode(table | more)


class Listener(NullListener):
    def __init__(self) -> None:
        self.result: list[str] = []

    def on_start(self, start: StartInfo) -> None:
        self.result += start.lines

    def on_message(self, sentence: str) -> None:
        self.result.append(sentence)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("damage") / "run"
    train(small(), out)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def weights(run: Path) -> bytes:
    newest, _ = checkpoint_folder.newest_valid(run / "saves")
    assert newest is not None
    return (newest.path / checkpoint.TENSORS).read_bytes()


def place(run: Path, step: int = 6) -> Path:
    return run / "saves" / f"step-{step:08d}"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- checkpoints ---------------------------------------------------------------------------------------------


def flip(run: Path, name: str, every: int) -> None:
    """All bits, or some of them, are flipped; each change is found."""
    path = place(run) / name
    whole = path.read_bytes()
    for at in range(0, 8 * len(whole), every):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(checkpoint.CheckpointError, match="step-00000006"):
            checkpoint.verify(place(run))
    path.write_bytes(whole)
    assert checkpoint.verify(place(run))["step"] == 6


@pytest.mark.parametrize("name", [checkpoint.MANIFEST, checkpoint.STATE])
def test_a_flipped_bit_is_found(run: Path, name: str) -> None:
    flip(run, name, 31)


@pytest.mark.slow
@pytest.mark.parametrize("name", [checkpoint.MANIFEST, checkpoint.STATE])
def test_every_flipped_bit_is_found(run: Path, name: str) -> None:
    flip(run, name, 1)


def test_a_renamed_checkpoint_is_found(run: Path) -> None:
    place(run, 4).rename(place(run, 8))
    newest, damaged = checkpoint_folder.newest_valid(run / "saves")
    assert newest is not None
    assert newest.step == 6
    assert damaged == ["step-00000008: MANIFEST.json is of step 4 and format 2, which does not match the folder"]


def test_the_first_format_is_supported(run: Path) -> None:
    manifest = json.loads((place(run) / checkpoint.MANIFEST).read_text())
    old = {name: outcome for name, outcome in manifest.items() if name not in ("sha256", "aliases", "core")} | {
        "format": 1
    }
    (place(run) / checkpoint.MANIFEST).write_text(json.dumps(old, indent=1))
    listener = Listener()
    train(small(8), run, resume=True, listener=listener)
    assert not any("skipped" in result for result in listener.result)


def again(found: checkpoint.Checkpoint, **facts: Any) -> None:
    """Write a checkpoint again with other manifest entries: intact, but of another run."""
    checkpoint.write(found.path.parent, found.step, found.tensors, found.state, found.manifest | facts)


def tampered(run: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None], step: int = 6) -> None:
    """A checkpoint with a correct manifest and invalid contents."""
    found = checkpoint.read(place(run, step))
    tensors, state = dict(found.tensors), dict(found.state)
    change(tensors, state)
    data = {checkpoint.TENSORS: safetensors.torch.save(tensors), checkpoint.STATE: json.dumps(state).encode()}
    for name, content in data.items():
        (place(run, step) / name).write_bytes(content)
    manifest = {name: result for name, result in found.manifest.items() if name != "sha256"}
    manifest["files"] = {
        name: {"size": len(content), "sha256": checkpoint.hashlib.sha256(content).hexdigest()}
        for name, content in data.items()
    }
    (place(run, step) / checkpoint.MANIFEST).write_bytes(checkpoint.seal_manifest(manifest))


def _set(key: str, value: object) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda tensors, state: state.update({key: value})


def _weight(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def applied(tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        name = next(n for n, t in sorted(tensors.items()) if n.startswith("game/g.net") and t.numel() > 1)
        tensors[name] = change(tensors[name]).contiguous()

    return applied


def _first(root: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def applied(tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        name = next(n for n, t in sorted(tensors.items()) if n.startswith(root) and t.numel() > 1)
        tensors[name] = change(tensors[name]).contiguous()

    return applied


def _nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan)


SENSELESS = {
    "seconds": _set("seconds", "long"),
    "negative": _set("seconds", -1),
    "no seconds": lambda tensors, state: state.pop("seconds"),
    "setbacks": _set("setbacks", [1]),
    "alarms": _set("alarms", "many"),
    "step": _set("step", 7),
    "dropped": lambda tensors, state: tensors.pop(next(n for n in sorted(tensors) if n.startswith("game/"))),
    "added": lambda tensors, state: tensors.update({"more": torch.zeros(2)}),
    "shape": _weight(lambda tensor: tensor.flatten()[:1]),
    "dtype": _weight(lambda tensor: tensor.double()),
    "nan": _weight(_nan),
    "infinite": _weight(lambda tensor: _nan(tensor).nan_to_num(nan=torch.inf)),
    "moment": _first("optimizer/d", lambda tensor: tensor.flatten()[:1]),
    "moment's type": _first("optimizer/d", lambda tensor: tensor.long()),
    "moment nan": _first("optimizer/g", _nan),
}


@pytest.mark.parametrize("change", SENSELESS.values(), ids=SENSELESS.keys())
def test_an_intact_checkpoint_with_invalid_contents_is_skipped(
    run: Path, whole: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]
) -> None:
    tampered(run, change)
    listener = Listener()
    train(small(), run, resume=True, listener=listener)
    assert any("skipped" in result and "step-00000006" in result for result in listener.result)
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("how", ["nan", "shape", "step"])
@pytest.mark.parametrize("command", ["sample", "measure", "interpolate"])
def test_other_commands_skip_it_too(poise: Poise, run: Path, command: str, how: str) -> None:
    tampered(run, SENSELESS[how])
    more = ["--measures", "coverage", "--n", 10] if command == "measure" else []
    result = poise(command, run, *more)
    assert result.code == 0
    assert "skipped a damaged checkpoint: step-00000006" in result.err
    for step in (2, 4):
        tampered(run, SENSELESS[how], step)
    poise(command, run, *more).assert_error(4, "no valid checkpoint", "step-00000006", "step-00000002")


def test_checkpoints_of_another_recipe_or_data_are_skipped(run: Path, whole: Path) -> None:
    found = checkpoint.read(place(run))
    again(found, data="other data")
    four = checkpoint.read(place(run, 4))
    other = small(batch=16)
    checkpoint.write(
        run / "saves", 4, four.tensors, {**four.state, "recipe": other.core}, {**four.manifest, "core": "other"}
    )
    listener = Listener()
    train(small(), run, resume=True, listener=listener)
    assert [result.partition(": ")[2][:13] for result in listener.result if "skipped" in result] == [
        "step-00000006",
        "step-00000004",
    ]
    assert any("different values of batch in step-00000004" in result for result in listener.result)
    assert weights(run) == weights(whole)


def test_an_edited_recipe_is_refused_with_its_fields(poise: Poise, run: Path) -> None:
    path = run / "recipe.toml"
    path.write_text(path.read_text().replace("batch = 8", "batch = 16").replace("dim = 2", "dim = 3"))
    before = contents(run)
    poise("train", "--resume", "--out", run).assert_error(2, "--resume", "batch, latent.dim", "recipe.toml")
    assert contents(run) == before


def test_fields_that_may_change_can_be_edited(poise: Poise, run: Path) -> None:
    path = run / "recipe.toml"
    path.write_text(path.read_text().replace("steps = 6", "steps = 7").replace("rows = 1", "rows = 2"))
    assert poise("train", "--resume", "--out", run).code == 0


def test_a_recipe_of_an_older_version_with_fewer_fields(run: Path) -> None:
    """A new field has its default value."""
    found = checkpoint.read(place(run))
    shorter = "\n".join(line for line in small().core.splitlines() if not line.startswith("judging"))
    checkpoint.write(
        run / "saves", 6, found.tensors, {**found.state, "recipe": shorter}, {**found.manifest, "core": "older"}
    )
    train(small(7), run, resume=True)


# ---- files of the run folder ---------------------------------------------------------------------------

DAMAGE = {
    "flipped": lambda line: b"\x7f" + line[1:],
    "cut": lambda line: line[:9],
    "types": lambda line: b'{"step": "three"}',
    "list": lambda line: b"[]",
    "bytes": lambda line: b"\xff\xfe\x00",
    "empty": lambda line: b"{}",
}


def damage(path: Path, line: int, how: str) -> None:
    lines = path.read_bytes().splitlines()
    lines[line - 1] = DAMAGE[how](lines[line - 1])
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["rows.jsonl", "measures.jsonl", "alarms.jsonl"])
def test_a_damaged_line_before_the_checkpoint_is_an_error(poise: Poise, run: Path, name: str, how: str) -> None:
    damage(run / name, 1, how)
    before = contents(run)
    result = poise("train", "--resume", "--out", run, "--steps", 8)
    result.assert_error(4, f"{name}:1", "line 1 is damaged", "delete it")
    assert contents(run) == before
    if name != "alarms.jsonl":
        poise("watch", run).assert_error(4, f"{name}:1")
    assert poise("sample", run).code == 0


@pytest.mark.parametrize("name", ["rows.jsonl", "measures.jsonl"])
def test_a_damaged_line_after_the_checkpoint_is_deleted(run: Path, whole: Path, name: str) -> None:
    shutil.rmtree(place(run))
    damage(run / name, len((run / name).read_bytes().splitlines()), "bytes")
    train(small(), run, resume=True)
    for line in (run / name).read_text().splitlines():
        json.loads(line)
    assert weights(run) == weights(whole)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "run.json"),
        ("{", "run.json"),
        ("[]", "run.json"),
        ("{}", "run.json"),
        ("null", "run.json"),
        ('{"state": 3}', "state"),
    ],
)
def test_a_damaged_run_json_is_written_again(poise: Poise, run: Path, text: str, part: str) -> None:
    (run / "run.json").write_text(text)
    for command in ("sample", "interpolate", "measure"):
        poise(command, run).assert_error(4, "run.json", "damaged", part, "poise train --resume writes a new one")
    assert poise("train", "--resume", "--out", run).code == 0
    assert poise("sample", run).code == 0


def test_a_damaged_run_json_without_checkpoints_is_not_said_to_be_written_again(poise: Poise, run: Path) -> None:
    (run / "run.json").write_text("{")
    shutil.rmtree(run / "saves")
    result = poise("measure", run)
    result.assert_error(4, "run.json", "damaged")
    assert "--resume" not in result.err


@pytest.mark.parametrize("key", ["shape", "classes", "count", "fingerprint", "kind"])
def test_wrong_types_in_run_json_are_an_error(poise: Poise, run: Path, key: str) -> None:
    info = json.loads((run / "run.json").read_text())
    for wrong in ({}, [None], 1.5, True):
        info["data"][key] = wrong
        (run / "run.json").write_text(json.dumps(info))
        poise("sample", run).assert_error(4, "run.json", f"data.{key}")


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("shape", []),
        ("shape", [32, 32]),
        ("shape", [1, 0, 8]),
        ("shape", [-1, 8, 8]),
        ("shape", [1, 8, 8, 1]),
        ("class_counts", [1]),
        ("class_counts", "one"),
    ],
)
def test_values_in_run_json_that_no_data_has_are_an_error(poise: Poise, run: Path, key: str, wrong: object) -> None:
    """One such run doesn't keep the others from being listed."""
    info = json.loads((run / "run.json").read_text())
    info["data"][key] = wrong
    (run / "run.json").write_text(json.dumps(info))
    poise("sample", run).assert_error(4, "run.json", f"data.{key}")
    listed = poise("runs", run.parent)
    assert listed.code == 0
    assert "damaged" in listed.out


@pytest.mark.parametrize(
    "counts", [[0, 0], [1, -2], [1, "a"], [3], [1, 2, 3], None], ids=["none", "negative", "word", "few", "many", "old"]
)
def test_counts_of_classes(counts: list[object] | None) -> None:
    data = {"classes": ["a", "b"]} | ({} if counts is None else {"class_counts": counts})
    check = INFO_CHECKS["data.class_counts"]
    if counts is None:
        check({"data": data})
        return
    with pytest.raises((ValueError, TypeError)):
        check({"data": data})


@pytest.mark.parametrize("text", ["steps = ", "steps = 'many'", "unknown = 1", "\x00", ""])
def test_a_damaged_recipe_is_an_error(poise: Poise, run: Path, text: str) -> None:
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text)
    before = contents(run)
    for words in (["sample", run], ["measure", run], ["interpolate", run]):
        poise(*words).assert_error(4, "recipe.toml")
    assert contents(run) == before
    (run.parent / "mine.toml").write_text(recipe)
    assert poise("train", run.parent / "mine.toml", "--resume", "--out", run).code == 0
    assert (run / "recipe.toml").read_text() == recipe


def damaged(saves: Path) -> None:
    """Cut a byte off the tensors of all checkpoints of a folder."""
    for path in saves.glob(f"step-*/{checkpoint.TENSORS}"):
        path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [damaged, shutil.rmtree])
@pytest.mark.parametrize("place", ["best", "kept"])
def test_an_intact_checkpoint_elsewhere_is_named(
    poise: Poise, run: Path, whole: Path, place: str, spoil: Callable[[Path], None]
) -> None:
    """If those of `saves/` are damaged or not there, with a way to use it that works."""
    (best,) = (run / "best").iterdir()
    intact = run / place / best.name
    if place == "kept":
        intact.parent.mkdir()
        best.rename(intact)
    spoil(run / "saves")
    copying = f"{intact} is intact: copy this folder into {run / 'saves'} and repeat the command"
    poise("train", "--resume", "--out", run).assert_error(4, "no valid checkpoint", f"{copying}, or start a new run")
    use = f"{intact} is intact: add --best" if place == "best" else copying
    poise("sample", run).assert_error(4, "no valid checkpoint", use)
    assert poise("sample", run, "--best").code == (0 if place == "best" else 4)
    shutil.copytree(intact, run / "saves" / intact.name, dirs_exist_ok=True)
    assert poise("sample", run).code == 0
    train(small(), run, resume=True)
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("spoil", [damaged, shutil.rmtree])
@pytest.mark.parametrize("also", [False, True])
def test_no_cure_is_named_that_does_not_help(
    poise: Poise, run: Path, also: bool, spoil: Callable[[Path], None]
) -> None:
    """A best checkpoint that is damaged or missing, and intact ones in `saves/`, or also none."""
    spoil(run / "best")
    if also:
        spoil(run / "saves")
        result = poise("train", "--resume", "--out", run)
        result.assert_error(4, "no valid checkpoint", "start a new run")
        assert "is intact" not in result.err
    result = poise("sample", run, "--best")
    result.assert_error(4, "no valid checkpoint", "" if also else f"{place(run)} is intact: leave out --best")
    assert ("is intact" in result.err) != also


@pytest.mark.parametrize(
    ("size", "words"), [(-1, "is truncated: 9 bytes instead of 10"), (1, "is too long: 11 bytes instead of 10")]
)
def test_a_file_of_another_size_is_described(size: int, words: str, tmp_path: Path) -> None:
    path = checkpoint.write(tmp_path, 6, {}, {"seconds": 0.0}, {})
    files = {name: {"size": 10, "sha256": ""} for name in (checkpoint.TENSORS, checkpoint.STATE)}
    manifest = {"format": 2, "step": 6, "files": files, "aliases": {}}
    (path / checkpoint.MANIFEST).write_bytes(checkpoint.seal_manifest(manifest))
    (path / checkpoint.TENSORS).write_bytes(bytes(10 + size))
    with pytest.raises(checkpoint.CheckpointError, match=words):
        checkpoint.verify(path)


def test_a_damaged_best_checkpoint_is_replaced(poise: Poise, run: Path) -> None:
    (best,) = (run / "best").iterdir()
    (best / checkpoint.TENSORS).write_bytes(b"?")
    poise("sample", run, "--best").assert_error(4, "best", f"{best.name}: tensors.safetensors is truncated")
    result = poise("train", "--resume", "--out", run, "--steps", 8)
    assert result.code == 0
    assert "the best checkpoint is damaged" in result.err
    assert poise("sample", run, "--best").code == 0


def test_a_run_is_done_only_if_run_json_says_so(poise: Poise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.toml").write_text(small(2).to_toml())
    write = trainer.write_json

    def full(path: Path, value: Any) -> None:
        if value.get("state") == "done":
            raise DiskError("can't be written: No space left on device", where=str(path))
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_json", full)
        result = poise("train", tmp_path / "small.toml", "--out", tmp_path / "run")
    result.assert_error(6, "run.json", "No space left")
    assert poise("train", tmp_path / "small.toml", "--out", tmp_path / "run", "--resume").code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"


# ---- incomplete and simultaneous starts ------------------------------------------------------------------------


class Killed(BaseException):
    """Stops a run as a kill does, without ending the process."""


def begun(out: Path) -> None:
    """A run that stops before its first checkpoint."""

    class Killer(NullListener):
        def on_step(self, step: int) -> None:
            raise Killed

    with pytest.raises(Killed):
        train(small(), out, listener=Killer())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("state", ["after a step", "only the lock", "a damaged row", "an old temporary", "kept"])
def test_a_run_without_a_checkpoint_starts_again(tmp_path: Path, whole: Path, resume: bool, state: str) -> None:
    out = tmp_path / "run"
    begun(out)
    if state == "only the lock":
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink() if entry.name != "run.lock" else None
    if state == "a damaged row":
        damage(out / "rows.jsonl", 1, "bytes")
    if state == "an old temporary":
        (out / ".run.json.4711").write_text("{")
        (out / "saves" / ".tmp-zzzz-4711-step-00000002").mkdir(parents=True)
    if state == "kept":  # by an alarm, before the run was rolled back to the beginning
        (out / "kept" / "step-00000002").mkdir(parents=True)
        (out / "kept" / "step-00000002" / "state.json").write_text("{}")
    listener = Listener()
    train(small(), out, resume=resume, listener=listener)
    assert (out / "kept").exists() == (state == "kept")
    assert any("starts from the beginning" in result for result in listener.result)
    assert weights(out) == weights(whole)
    assert not [path for path in out.rglob(".*") if path.name.startswith((".tmp-", ".run.json"))]


def test_what_a_run_writes_is_no_foreign_file() -> None:
    """Any path that a run folder knows may be there before there is a checkpoint."""
    out = Path("run")
    known = [path.relative_to(out) for path in vars(RunFolder(out)).values() if isinstance(path, Path) and path != out]
    assert len(known) > 10
    assert [path for path in known if not EARLY_FILES.fullmatch(path.as_posix())] == []


@pytest.mark.parametrize(
    "inside", ["kept/x", "thesis.txt", "samples/mine.png", "saves/mine", "tensorboard/notes.txt", "best/x"]
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_foreign_files_is_refused(poise: Poise, tmp_path: Path, inside: str, resume: bool) -> None:
    out = tmp_path / "run"
    begun(out)
    (out / inside).parent.mkdir(exist_ok=True)
    (out / inside).write_text("dear")
    (tmp_path / "small.toml").write_text(small().to_toml())
    before = contents(out)
    result = poise("train", tmp_path / "small.toml", "--out", out, *(["--resume"] if resume else []))
    assert result.code == (4 if resume else 2)
    assert contents(out) == before


def test_two_simultaneous_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    """Both find an empty folder; the first finishes before the second claims it, and nothing is overwritten."""
    out, built, ended = tmp_path / "run", threading.Event(), threading.Event()
    building = training.Trainer

    def waiting(*arguments: Any, **options: Any) -> Any:
        made = building(*arguments, **options)
        if threading.current_thread().name == "second":
            built.set()
            ended.wait(60)
        return made

    monkeypatch.setattr(training, "Trainer", waiting)
    errors: list[BaseException] = []

    def second() -> None:
        try:
            train(small(seed=9), out)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=second, name="second")
    thread.start()
    assert built.wait(60)  # threads share the global random state, which both would seed otherwise
    train(small(), out)
    before = contents(out)
    ended.set()
    thread.join(60)
    (error,) = errors
    assert isinstance(error, RecipeError)
    assert "another run has written to this folder" in str(error)
    assert contents(out).keys() == before.keys()
    assert weights(out) == weights(whole)


@pytest.mark.parametrize("rival", ["writes", "has ended"])
def test_a_default_folder_that_is_taken_meanwhile_is_left_to_the_other_run(
    rival: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several runs of one recipe may be started at once; each gets a folder of its own."""
    monkeypatch.chdir(tmp_path)
    building, first = training.Trainer, tmp_path / "runs" / small().name

    def overtaken(*arguments: Any, **options: Any) -> Any:
        if not first.exists():
            held.enter_context(RunFolder(first).claim())
            if rival == "has ended":
                held.close()
                (first / "run.json").write_text("{}")
        return building(*arguments, **options)

    monkeypatch.setattr(training, "Trainer", overtaken)
    with ExitStack() as held:
        assert train(small()).path == Path("runs") / f"{first.name}-2"
        assert {path.name for path in first.iterdir()} <= {"run.lock", "run.json"}


# ---- missing system features -----------------------------------------------------------------------

HIDDEN = """
import json, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
from poise.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as left:
        assert not left.code, words
"""


def test_without_fcntl_and_resource(tmp_path: Path) -> None:
    """As on Windows: everything works, and each run reports that its folder is not locked."""
    (tmp_path / "small.toml").write_text(small(2).to_toml())
    recipe, out = str(tmp_path / "small.toml"), str(tmp_path / "run")
    lines = [
        ["train", recipe, "--out", out],
        ["train", "--resume", "--out", out, "--steps", "4"],
        ["check", recipe],
        ["sample", out],
    ]
    done = subprocess.run([sys.executable, "-c", HIDDEN, json.dumps(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not support locks") == 2
    assert "Warning" not in done.stderr
    newest, _ = checkpoint_folder.newest_valid(tmp_path / "run" / "saves")
    assert newest is not None
    assert newest.step == 4


def test_an_unavailable_lock_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(system, "lock", refuse)
    listener = Listener()
    train(small(2), tmp_path / "run", listener=listener)
    assert sum("does not support locks (Operation not supported)" in result for result in listener.result) == 1


# ---- rows are tried three times -----------------------------------------------------------------------------


def refusing_rows(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    append, left = jsonl.append_line, [times]

    def refused(path: Path, value: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise DiskError("can't be written: No space left on device", where=str(path))
        append(path, value)

    monkeypatch.setattr(jsonl, "append_line", refused)


def test_a_row_that_failed_is_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    refusing_rows(monkeypatch, 1)
    listener = Listener()
    train(small(), tmp_path / "run", listener=listener)
    assert [result for result in listener.result if "could not write to rows.jsonl" in result]
    outcome = [
        [json.loads(line)["step"] for line in (run / "rows.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", whole)
    ]
    assert outcome[0] == outcome[1]


def test_no_checkpoint_is_written_while_a_row_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a kill would lose the row; after three failures the run stops."""
    refusing_rows(monkeypatch, 99)
    with pytest.raises(DiskError, match=r"rows\.jsonl"):
        train(small(), tmp_path / "run")
    assert not list((tmp_path / "run" / "saves").glob("step-*"))
