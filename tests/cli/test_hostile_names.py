"""Every command with names that contain control sequences: classes, files, columns, keys, labels, errors.

Nothing that a terminal obeys reaches stdout or stderr, and no name is taken for markup. The last of each pair of words
below is what is seen instead.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.cli.progress_view import LiveView
from poise.utils.console import TerminalConsole
from poise.utils.printing import CONTROL_CHARACTERS

RED, MARKUP, RETURN, BIDI = "\x1b[31mred", "[bold]x[#]", "a\rb", "\u202etxt.exe"
CLASSES = (RED, MARKUP, RETURN, BIDI)
SEEN = (r"\x1b[31mred", "[bold]x[#]", r"a\rb", r"\u202etxt.exe")
EVIL = "".join(CLASSES) + "\x9b2J\x7f\udcff"
THIN = ["--set", "data.size=8", "--set", "network.g.width=2", "--set", "network.d.width=2", "--set", "latent.dim=4"]
THIN += ["--set", "batch=4", "--set", "log.sheet=4", "--steps", "2", "--set", "log.rows=1"]
LABELS = ["--set", 'conditioning={g={kind="concat", dim=4}, d={kind="projection"}}']
OWN = """
from torch import nn

class G(nn.Module):
    def __init__(self, latent, shape):
        raise ValueError("\\x1b[31mmine\\r\\u202e")
"""

Poise = Callable[..., Any]


def clean(result: Any) -> str:
    """All that was said, in which nothing is left to obey."""
    text = result.out + result.err
    assert "internal error" not in text
    found = CONTROL_CHARACTERS.search(text.replace("\n", ""))
    assert found is None, ascii(text)
    return text


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hostile name, with four classes of such names, and a picture that can't be read."""
    folder = tmp_path_factory.mktemp("hostile") / "".join(CLASSES)
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{RED}{i}.png")
        (folder / name / f"{BIDI}{RED}.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def run(poise: Poise, pictures: Path) -> Path:
    """A conditional run on them."""
    out = pictures.parent / f"runs {''.join(CLASSES)}" / "run"
    result = poise("train", "dcgan", "--data", pictures, "--out", out, *THIN, *LABELS, "--set", "measure.n=10")
    assert result.code == 0, result.err
    text = clean(result)
    assert SEEN[3] + SEEN[0] in text, "the bad pictures are named"
    return out


def test_check(poise: Poise, pictures: Path) -> None:
    result = poise("check", "dcgan", "--data", pictures, *THIN, *LABELS)
    assert result.code == 0, result.err
    clean(result)
    outcome = poise("check", "dcgan", "--data", pictures, *THIN, *LABELS, "--json")
    assert clean(outcome).isascii()
    json.loads(outcome.out)


def test_the_live_view(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from poise.runs.run import Run
    from poise.training.train import train

    out = io.StringIO()
    view = LiveView(TerminalConsole(file=out, force_terminal=True, width=200))
    there = run.parent / "live"
    train(Run(run).recipe, there, listener=view)
    view.on_message(EVIL)
    text = out.getvalue()
    for one in ("\x1b[31mred", "a\rb", "\u202e", "\x9b", "\x7f", "\udcff"):
        assert one not in text, ascii(one)
    assert SEEN[0] in text
    assert MARKUP in text


@pytest.mark.parametrize("name", CLASSES, ids=ascii)
def test_sample_and_interpolate(poise: Poise, run: Path, name: str, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.png"
    result = poise("sample", run, "--label", name, "--out", out, "--npz", tmp_path / f"{name}.npz", "--n", 2)
    assert result.code == 0, result.err
    clean(result)
    result = poise("interpolate", run, "--label", name, "--out", out, "--steps", 2, "--rows", 1)
    assert result.code == 0, result.err
    assert SEEN[CLASSES.index(name)] in clean(result)


def test_measure_and_compare(poise: Poise, run: Path, pictures: Path, tmp_path: Path) -> None:
    some = ["--measures", "fid,precision", "--features", "pixels"]
    result = poise("measure", run, *some, "--n", 10, "--neighbours", tmp_path / f"{RED}.png")
    assert result.code == 0, result.err
    assert SEEN[0] in clean(result)
    result = poise("compare", pictures, pictures, *some)
    assert result.code == 0, result.err
    clean(result)


def test_watch(poise: Poise, run: Path, tmp_path: Path) -> None:
    clean(poise("watch", run))
    log = tmp_path / f"{''.join(CLASSES)}.csv"
    log.write_text(f"step,loss_D,loss_G,{RED}\n" + "".join(f"{50 * k},0.001,1.5,1\n" for k in range(1, 21)))
    for words in ([], ["--plot", tmp_path / f"{RED}{BIDI}.png"], ["--json"]):
        result = poise("watch", log, *words)
        assert result.code == 0, result.err
        clean(result)
    odd = tmp_path / "odd.csv"
    odd.write_text(f"{RED},{BIDI}\n1,2\n", "utf-8")
    result = poise("watch", odd)
    assert result.code == 2
    clean(result)


@pytest.mark.parametrize(
    "words",
    [
        ["train", EVIL],
        ["train", "--data", EVIL],
        ["train", "--out", "/dev/null/" + EVIL[:-1]],
        ["train", "--set", EVIL],
        ["train", "--set", f'"{RED}"=1'],
        ["train", "--set", f"batch='{RED}'"],
        ["train", "--set", 'name="\\u001b[31m"'],
        ["train", "--resume", "--out", EVIL],
        ["train", "--device", EVIL],
        ["check", EVIL],
        ["check", "--json", EVIL],
        ["check", EVIL + ".toml"],
        ["sample", EVIL],
        ["measure", EVIL],
        ["compare", EVIL, EVIL],
        ["watch", EVIL],
        ["ladder", "--data", EVIL],
        ["ladder", "--out", "/dev/null/" + EVIL[:-1], "--steps", "1"],
        ["tips", EVIL],
        ["tips", "--recipe", EVIL],
        [EVIL],
        ["train", "--" + EVIL],
        ["train", "ring", EVIL],
        ["train", "--steps", EVIL],
    ],
    ids=lambda words: ascii(" ".join(words))[:40],
)
def test_errors(poise: Poise, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = poise(*words)
    assert result.code in (2, 3, 4, 6), result.err
    clean(result)
    assert result.last.startswith("poise: ")


def test_refused_by_a_run(poise: Poise, run: Path) -> None:
    for words in (["sample", run, "--label", EVIL], ["interpolate", run, "--towards", EVIL]):
        result = poise(*words)
        assert result.code == 2
        assert SEEN[0] in clean(result)


def test_foreign_recipes(poise: Poise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key.toml").write_text('"\\u001b[31mkey" = 1\n')
    Path("about.toml").write_text('about = "\\u001b[31m [bold]"\nname = "x"\ntricks = [{kind = "\\u202e"}]\n')
    Path("broken.toml").write_text("a = \x1b[31m\n")
    Path("mine.py").write_text(OWN)
    for name in ("key", "about", "broken"):
        for words in (["train"], ["check"], ["check", "--json"], ["tips", "--recipe"]):
            clean(poise(*words, f"{name}.toml"))
    own = ["--set", 'network.g={kind="python", file="mine.py", name="G"}']
    for words in (["train", "ring", "--out", "x"], ["check", "ring"], ["--debug", "check", "ring"]):
        result = poise(*words, *own, "--trust-code")
        assert result.code == 2
        assert r"\x1b[31mmine\r\u202e" in clean(result)


@pytest.mark.skipif(os.name == "nt", reason="names are bytes elsewhere")
def test_path_that_is_not_utf8(poise: Poise, pictures: Path, tmp_path: Path) -> None:
    """A recipe is UTF-8, so it can't hold such a path: refused, and nothing is written."""
    folder = shutil.copytree(pictures, tmp_path / os.fsdecode(b"a\xff"))
    out = tmp_path / "run"
    result = poise("train", "dcgan", "--data", folder, "--out", out, *THIN)
    assert result.code == 3
    assert r"a\udcff" in clean(result)
    assert not out.exists()
