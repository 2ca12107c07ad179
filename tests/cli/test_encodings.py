"""stdout and stderr in ASCII, Latin-1 or cp1252: every command works, and what can't be written is replaced."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.cli import main
from poise.cli.progress_view import LiveView
from poise.runs.run import Run
from poise.training.train import train
from poise.utils.console import TerminalConsole
from poise.utils.printing import make_stream_lenient

narrow = pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
KINDS = ["日本", "übel"]


def stream(encoding: str) -> tuple[io.TextIOWrapper, io.BytesIO]:
    raw = io.BytesIO()
    return io.TextIOWrapper(raw, encoding=encoding, errors="strict"), raw


def result(encoding: str, *words: object) -> str:
    """What a command prints on streams of this encoding."""
    (out, raw_out), (err, raw_err) = stream(encoding), stream(encoding)
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out.flush()
    err.flush()
    outcome, complaint = raw_out.getvalue().decode(encoding), raw_err.getvalue().decode(encoding)
    assert left.value.code == 0, complaint
    return outcome + complaint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("narrow") / "表", np.random.default_rng(0)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / kind / f"ń{i}.png")
    (folder / "übel" / "ń.png").touch()
    return folder


@narrow
def test_informative_commands(encoding: str) -> None:
    for words in (["recipes"], ["tips"], ["tips", "T06b"], ["tips", "T05b"], ["tips", "--recipe", "dcgan"], ["--help"]):
        assert result(encoding, *words)
    assert json.loads(result(encoding, "tips", "--json"))


@narrow
def test_check_train_and_evaluate(encoding: str, pictures: Path, tmp_path: Path) -> None:
    thin = ["--set", "data.size=8", "--set", "network.g.width=2", "--set", "network.d.width=2", "--set", "batch=4"]
    thin += ["--data", pictures, "--steps", 2, "--set", "log.rows=1", "--set", "log.sheet=4"]
    thin += ["--set", 'conditioning={g={kind="concat", dim=4}, d={kind="projection"}}', "--set", "measure.n=10"]
    out = tmp_path / "é"
    for words in (["check", "dcgan"], ["check", "dcgan", "--json"]):
        result(encoding, *words, *thin)
    outcome = result(encoding, "train", "dcgan", *thin, "--out", out / "run")
    assert (r"\xe9" if encoding == "ascii" else "é") in outcome
    some = ["--measures", "kid", "--features", "pixels"]
    assert ("±" in result(encoding, "measure", out / "run", *some, "--n", 10)) == (encoding != "ascii")
    json.loads(result("ascii", "compare", pictures, pictures, *some, "--json").split("\n}\n")[0] + "}")
    result(encoding, "compare", pictures, pictures, *some)
    result(encoding, "sample", out / "run", "--label", "日本", "--n", 2)
    result(encoding, "watch", out / "run")


@narrow
def test_the_live_view(encoding: str, ring_run: Path, tmp_path: Path) -> None:
    file, raw = stream(encoding)
    make_stream_lenient(file)
    view: Any = LiveView(TerminalConsole(file=file, force_terminal=True, width=140))
    recipe = Run(ring_run).recipe
    train(recipe.model_copy(update={"name": "x"}), tmp_path / "live", listener=view)
    file.flush()
    outcome = raw.getvalue().decode(encoding)
    assert "| log 2" in outcome, "the mark of the even level, in ASCII"
