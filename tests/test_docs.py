"""Every command in the docs is run, in the order in which it stands there, on a folder with real files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tarfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from poise import cli
from poise.core import hooks
from poise.core.config import find_components
from poise.core.types import Side
from poise.data.clouds import CloudsConfig
from poise.data.source import DataSplits, SizedSource
from poise.data.word_vectors import write_word_vectors
from poise.measure.evaluator import Evaluator
from poise.objectives.base import Objective
from poise.study.engines import ENGINES
from poise.training import precheck
from poise.tricks.base import TrickConfig
from poise.web.server import Server
from study.tiny_studies import DirectExecutor

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"# file: (\S+)\n")
BLOCK = re.compile(r"^```(?:console|sh)\n(.*?)^```", re.M | re.S)

# a run in the docs takes minutes; here its recipe is the same and its length is not
SHORT = ["--set", "log.sheet=4", "--set", "log.rows=1", "--set", "batch=4", "--set", "measure.n=20", "--steps", "2"]
SMALL = ["--set", "network.g.width=4", "--set", "network.d.width=4"]
SMALL_ALONE = ["--set", "network.g.width=4"]
SMALL_MAP = ["--set", "network.d.width=4"]
FEW = 60
ALONE = {"autoencoder", "vae", "latent-optimisation"}
READS_WHAT_COMMANDS_WRITE = {"export.md", "folder-of-images.md", "translation.md"}
"""Pages whose blocks of Python need the files that their commands write; both are run together."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> list[str]:
    lines = [line.strip() for block in BLOCK.findall(page.read_text("utf-8")) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line and not line.startswith("#")]


@pytest.fixture(autouse=True)
def _studies_run_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would each import torch; tests/study has them."""
    monkeypatch.setitem(ENGINES, "local", lambda workers: DirectExecutor())


@pytest.fixture(autouse=True)
def _few_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a few samples are compared, where a user compares a thousand."""
    made = Evaluator.__init__

    def smaller(
        self: Evaluator, entry: Any, loaded: DataSplits, features: str = "auto", n: int | None = None, **more: Any
    ) -> None:
        few = isinstance(loaded.held_out, SizedSource) and len(loaded.held_out) <= FEW
        made(self, entry, loaded, features, n if few else min(n or FEW, FEW), **more)

    monkeypatch.setattr(Evaluator, "__init__", smaller)


@pytest.fixture(autouse=True)
def _warm_ups_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(precheck.warm_up_reconstruction, moves=2 * precheck.BLOCK)
    monkeypatch.setattr(precheck, "warm_up_reconstruction", short)


@pytest.fixture(autouse=True)
def _servers_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "serve_until_stopped", lambda self: self.listener.close())


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user may have it: images, an array of images, another trainer's logs."""
    rng = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "drawing.png")
    for language, one in zip(("english", "italian"), CloudsConfig(count=40, dim=3, clusters=4).read(), strict=True):
        write_word_vectors(tmp_path / f"{language}.vec", one)
    (tmp_path / "en-it.txt").write_text("".join(f"{word} {word}\n" for word in range(30)))
    (tmp_path / "training.csv").write_text("iter,loss_D,loss_G\n" + "".join(f"{i},0.6,0.8\n" for i in range(1, 50)))
    (tmp_path / "training.log").write_text("".join(f"step {i} D: 0.61 G: 0.8\n" for i in range(1, 50)))
    write_two_domains(tmp_path)
    write_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_two_domains(folder: Path) -> None:
    """Pairs side by side, and two unpaired sets."""
    rng = np.random.default_rng(1)
    for place in ("horses", "facades/train", "facades/val"):
        (folder / place).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (16, 32 if "facades" in place else 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
    np.savez(folder / "zebras.npz", images=rng.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8))


def write_shards(folder: Path) -> None:
    """Two tar archives of images and labels."""
    folder.mkdir()
    for part in range(2):
        with tarfile.open(folder / f"photos-{part:03d}.tar", "w") as archive:
            for number in range(12):
                image = folder.parent / "images" / ("cats", "dogs")[part] / f"{number}.png"
                archive.add(image, f"{number}.png")
                label = folder.parent / "label.json"
                label.write_text(json.dumps({"colour": ("red", "blue")[number % 2]}))
                archive.add(label, f"{number}.json")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_runs(page: Path, somewhere: Path) -> None:
    ran = 0
    write_files(page)
    for line in commands(page):
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            subprocess.run(["make", "--dry-run", "-C", str(ROOT), *words[1:]], check=True, stdout=subprocess.DEVNULL)
        elif words[:1] == ["poise"]:
            run_poise(words[1:])
        elif words[0] == "torchrun":  # `training/test_ranks.py` launches several processes
            run_poise(words[words.index("poise") + 1 :])
        elif words[0] == ".venv/bin/python":
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[0] in ("git", "cd", "pip", ".venv/bin/pip", ".venv/bin/pre-commit", "tensorboard"), line
        ran += 1
    if page.name == "README.md":
        assert ran >= 6
    if page.name in READS_WHAT_COMMANDS_WRITE:
        run_blocks(page)


def blocks(page: Path) -> list[str]:
    return PYTHON.findall(page.read_text("utf-8"))


def write_files(page: Path) -> None:
    """A block of Python that begins with a file's name is that file; one of TOML with a name is a plan, here tiny."""
    for plan, called in re.findall(r'^```toml\n(name = "([\w-]+)".*?)^```', page.read_text("utf-8"), re.M | re.S):
        tiny = re.sub(r"images = [\d_]+", "images = 1_000", re.sub(r"seeds = \d+", "seeds = 1", plan))
        Path(f"{called}.toml").write_text(tiny)
    for block in blocks(page):
        if named := FILE.match(block):
            Path(named[1]).write_text(block)


def run_poise(words: list[str]) -> None:
    if words[0] in ("train", "check"):
        points = any(word in ("ring", "grid", "two_moons", "swiss_roll", "spiral") for word in words)
        own = any("python" in word for word in words)
        small = SMALL_ALONE if ALONE.intersection(words) else SMALL_MAP if "align" in words else SMALL
        if "--time" in words:  # it excludes the number of steps in SHORT
            at = words.index("--time")
            words = words[:at] + words[at + 2 :]
        short = [*SHORT[:6], *SHORT[-2:]] if "align" in words else SHORT  # vectors have no measures
        words = [*words, *short, *([] if points or own else small)]
    if words[0] == "align":
        words = [*words, *SHORT[:6], *SHORT[-2:], *SMALL_MAP, "--starts", "1"]
    if words[0] == "ladder":
        words = [*words, "--steps", "2", "--batch", "4", "--size", "8"]
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0, words


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.name not in READS_WHAT_COMMANDS_WRITE], ids=name
)
def test_every_block_of_python_runs(page: Path, somewhere: Path) -> None:
    write_files(page)
    run_blocks(page)


def run_blocks(page: Path) -> None:
    for block in blocks(page):
        if not FILE.match(block):
            exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_navigation_of_the_site_has_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"\S+\.md$", navigation, re.M)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    generated = set(re.findall(r'^    "(\w+\.md)": ROOT', (ROOT / "mkdocs_hooks.py").read_text("utf-8"), re.M))
    assert sorted(listed) == sorted(pages | generated)


def test_the_page_of_commands_has_every_command() -> None:
    page = (ROOT / "docs/commands.md").read_text("utf-8")
    assert re.findall(r"^\| `poise (\w+)` \|", page, re.M) == list(get_command(cli.app).commands)


def test_the_equilibrium_of_every_objective_is_told() -> None:
    page = (ROOT / "docs/how-to/learning-gans.md").read_text("utf-8")
    told = {}
    for names, *losses in re.findall(r"^\| (`.+`) \| (-?[\d.]+) \| (-?[\d.]+) \|", page, re.M):
        told |= {key: [float(loss) for loss in losses] for key in re.findall(r"`(\w+)`", names)}
    objectives = find_components(Objective, "poise.objectives").items()
    known = {kind: one().equilibrium for kind, one in objectives if one().equilibrium}
    assert told == {
        kind: [pytest.approx(loss[side], abs=5e-4) for side in (Side.D, Side.G)] for kind, loss in known.items()
    }


def test_the_cost_of_every_trick_is_told() -> None:
    section = (ROOT / "docs/tricks.md").read_text("utf-8").partition("## Cost per step")[2].partition("\n## ")[0]
    assert set(find_components(TrickConfig, "poise.tricks")) <= set(re.findall(r"`(\w+)`", section))


TRICKS = find_components(TrickConfig, "poise.tricks")


def test_the_table_of_hooks_has_every_trick() -> None:
    assert hooks_of_tricks().keys() == TRICKS.keys()


@pytest.mark.parametrize("kind", sorted(TRICKS))
def test_a_trick_inherits_from_its_hooks_in_the_table(kind: str) -> None:
    config: Any = TRICKS[kind]
    module = getattr(sys.modules[config.__module__], config.build.__annotations__["return"])
    for hook in hooks_of_tricks()[kind]:
        assert issubclass(module, getattr(hooks, hook)), hook


def hooks_of_tricks() -> dict[str, list[str]]:
    """The hooks of each trick, by the table in ARCHITECTURE.md."""
    table = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("| hook | changes |")[2].partition("\n\n")[0]
    found: dict[str, list[str]] = {}
    for line in table.splitlines()[2:]:
        hook, *_, tricks = re.split(r" ?\| ?", line.strip("| "))
        for kind in re.findall(r"`(\w+)`", "" if hook == "`Tempo`" else tricks):
            found.setdefault(kind, []).append(hook.strip("`"))
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"], ids=name)
def test_a_blank_line_comes_before_each_list(page: Path) -> None:
    """Without it, GitHub shows a list and the site a paragraph."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for before, line in pairwise(text.splitlines()):
        if re.match(r"(- |1\. )", line):
            assert re.match(r"$|- |\d+\. | |#", before), f"{page.name}: {line}"


def test_the_diff_that_contributing_shows_is_the_file() -> None:
    shown = re.findall(r"^```diff\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S)[0]
    added = [line[1:] for line in shown.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert added == (ROOT / "src/poise/objectives/hinge.py").read_text("utf-8").splitlines()
