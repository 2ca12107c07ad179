"""Doubts: for each rule a broken recipe that is warned of, and a sound twin that is not; none may be left out."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from contracts.tiny import recipe
from poise.recipe.checks import suspicious as doubting
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.tips import catalogue
from poise.training import precheck as checking

Table = dict[str, Any]
CONCAT: Table = {"kind": "concat", "dim": 2}
BOTH: Table = {"conditioning": {"g": CONCAT, "d": {"kind": "projection"}}}
CLIPPED: list[Table] = [{"kind": "weight_clipping"}]
WASSERSTEIN: Table = {"objective": {"kind": "wasserstein"}}
SPECTRAL: Table = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
}
ADAM: Table = {"kind": "adam", "lr": 1e-2}
MARGIN: Table = {
    "objective": {"kind": "energy"},
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "autoencoder", "width": 2, "code": 4}},
}


class Case(NamedTuple):
    """Changes and tricks that are warned of, those of the twin, and the warning."""

    broken: tuple[Table, list[Table]]
    sound: tuple[Table, list[Table]]
    field: str
    tip: str
    word: str
    world: str = "pictures"


def networks(world: str = "pictures", *, g: Table | None = None, d: Table | None = None) -> Table:
    """Both players tiny, with some fields of either changed."""
    kind = {"kind": "dcgan", "width": 2} if world == "pictures" else {"kind": "mlp", "width": 4}
    return {"network": {"g": kind | (g or {}), "d": kind | (d or {})}}


def optimizers(**d: Any) -> Table:
    return {"optimizer": {"g": ADAM, "d": d}}


def tempo(**fields: Any) -> Table:
    return {"tempo": {"kind": "ratio", **fields}}


def rated(**dial: Any) -> Table:
    return {"optimizer": {"g": {"kind": "adam", "lr": dial}, "d": ADAM}}


def ramp(**fields: Any) -> Table:
    return {"kind": "linear", "start": 0.2, "end": 0.1, "over": "steps", **fields}


def stairs(**fields: Any) -> Table:
    return {"kind": "steps", "values": [1e-2, 1e-3], **fields}


def stacked(objective: Table) -> Table:
    return {"data": {"kind": "stacked_digits"}} | SPECTRAL | objective


def tricks(*kinds: str) -> list[Table]:
    return [{"kind": kind} for kind in kinds]


NOISE = "instance_noise"
PLAIN: tuple[Table, list[Table]] = ({}, [])

CASES: dict[str, Case] = {
    # ---- _range
    "a sigmoid for pictures": Case(
        (networks(g={"output": "sigmoid"}), []),
        (networks(g={"output": "tanh"}), []),
        "network.g.output",
        "T01",
        "dark pixels",
    ),
    "no bounds for pictures": Case(
        (networks(g={"output": "linear"}), []),
        (networks(g={"output": "auto"}), []),
        "network.g.output",
        "T01",
        "outside that range",
    ),
    "a tanh for points": Case(
        (networks("points", g={"output": "tanh"}), []),
        (networks("points", g={"output": "linear"}), []),
        "network.g.output",
        "T01",
        "a tanh's output is at most 1",
        "points",
    ),
    "a sigmoid for points": Case(
        (networks("points", g={"output": "sigmoid"}), []),
        (networks("points", g={"output": "auto"}), []),
        "network.g.output",
        "T01",
        "a sigmoid's output is at most 1",
        "points",
    ),
    # ---- _sparse
    "a max pool": Case(
        (networks(d={"down": "max"}), []), (networks(d={"down": "average"}), []), "network.d.down", "T06a", "one pixel"
    ),
    "a ReLU in D": Case(
        (networks(d={"activation": "relu"}), []),
        (networks(g={"activation": "relu"}, d={"activation": "leaky_relu"}), []),
        "network.d.activation",
        "T06a",
        "negative",
    ),
    # ---- _momentum
    "a critic's beta": Case(
        (WASSERSTEIN | optimizers(**ADAM, betas=[0.5, 0.9]), CLIPPED),
        (WASSERSTEIN | optimizers(**ADAM, betas=[0.0, 0.9]), CLIPPED),
        "optimizer.d.betas",
        "T10",
        "'wasserstein' is unstable with momentum",
    ),
    "a critic's beta that falls to 0": Case(
        (WASSERSTEIN | optimizers(**ADAM, betas=[ramp(start=0.5, end=0.0, until=5), 0.9]), CLIPPED),
        (optimizers(**ADAM, betas=[ramp(start=0.5, end=0.0, until=5), 0.9]), []),
        "optimizer.d.betas",
        "T10",
        "unstable with momentum",
    ),
    "a critic's momentum": Case(
        (WASSERSTEIN | optimizers(kind="sgd", momentum=0.9), CLIPPED),
        (WASSERSTEIN | optimizers(kind="sgd"), CLIPPED),
        "optimizer.d.momentum",
        "T10",
        "momentum",
    ),
    "rmsprop's momentum": Case(
        (WASSERSTEIN | optimizers(kind="rmsprop", momentum=0.9), CLIPPED),
        (WASSERSTEIN | {"optimizer": {"g": ADAM, "d": {"kind": "rmsprop"}}}, CLIPPED),
        "optimizer.d.momentum",
        "T10",
        "momentum",
    ),
    # ---- _lazy
    "a lazy penalty on a toy": Case(
        ({}, [{"kind": "lecam"}, {"kind": "r1", "every": 4}]),
        ({}, [{"kind": "lecam"}, {"kind": "r1", "every": 1}]),
        "tricks.1.every",
        "T06b",
        "only one step of 4",
        "points",
    ),
    "a lazy penalty on stacked digits": Case(
        (stacked({}), [{"kind": "r2", "every": 2}]),
        (SPECTRAL, [{"kind": "r2", "every": 2}]),
        "tricks.0.every",
        "T06b",
        "'r2'",
        "stacked",
    ),
    "what is lazy and no penalty": Case(
        ({}, [{"kind": "wgan_gp", "every": 3}]),
        ({}, [{"kind": "experience_replay", "every": 3, "size": 6}]),
        "tricks.0.every",
        "T06b",
        "lazy penalties",
        "points",
    ),
    # ---- _head_start
    "a head start as long as the run": Case(
        (tempo(head_start=12) | MARGIN, []),
        (tempo(head_start=11) | MARGIN, []),
        "tempo.head_start",
        "T12",
        "G is never trained",
    ),
    "a head start that D wins": Case(
        (tempo(head_start=1), []), (tempo(head_start=0), []), "tempo.head_start", "T12", "perfectly"
    ),
    # ---- _twice
    "the same twice": Case(({}, tricks("lecam", "lecam")), ({}, tricks("lecam")), "tricks.1", "M03", "more than once"),
    # ---- _noisy_copies
    "noise that is charged for": Case(
        (SPECTRAL, tricks("lecam", "consistency", NOISE)),
        (SPECTRAL, tricks("lecam", "consistency")),
        "tricks.1",
        "M03",
        "noisy copies",
    ),
    # ---- _pairs
    "pairs of two classes": Case(
        ({"objective": {"kind": "relativistic"}} | BOTH, [{"kind": "history", "size": 20}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "history", "size": 20}]),
        "tricks.0",
        "T19",
        "the objective pairs",
    ),
    "a line between two classes": Case(
        (SPECTRAL | BOTH, tricks("wgan_gp", "image_pool")),
        (SPECTRAL | BOTH, tricks("image_pool")),
        "tricks.1",
        "T19",
        "'wgan_gp' pairs",
    ),
    # ---- _idle
    "an average nobody is shown": Case(
        ({}, [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 2}]),
        ({}, [{"kind": "mean_weights", "every": 2}]),
        "tricks.1",
        "T21",
        "never used",
    ),
    "copies that come too late": Case(
        ({}, [{"kind": "mean_weights", "every": 13}]),
        ({}, [{"kind": "mean_weights", "every": 12}]),
        "tricks.0",
        "T21",
        "no effect before step 13",
    ),
    # ---- _mixed
    "batch norm on a mixed batch": Case(
        ({"judging": "together"}, []), ({"judging": "apart"}, []), "judging", "T04", "batch norm in D"
    ),
    "a mixed batch compared": Case(
        (SPECTRAL | {"judging": "together"}, tricks("minibatch_stddev")),
        (SPECTRAL | {"judging": "together"}, []),
        "judging",
        "T04",
        "'minibatch_stddev' gets",
    ),
    # ---- _still_dials
    "a ramp after the end": Case(
        ({}, [{"kind": NOISE, "sigma": ramp(after=12, until=20)}]),
        ({}, [{"kind": NOISE, "sigma": ramp(after=11, until=20)}]),
        "tricks.0.sigma",
        "T11",
        "changes after 12 steps",
    ),
    "stairs after the end": Case(
        (rated(**stairs(at=[12.0], over="steps")), []),
        (rated(**stairs(at=[11.0], over="steps")), []),
        "optimizer.g.lr",
        "T11",
        "already over",
    ),
    "stairs at the end": Case(
        (rated(**stairs(at=[1.0])), []), (rated(**stairs(at=[0.9])), []), "optimizer.g.lr", "T11", "after 1 progress"
    ),
    "a beta after the end": Case(
        (optimizers(**ADAM, betas=[0.5, ramp(after=30, until=40)]), []),
        (optimizers(**ADAM, betas=[0.5, ramp(until=40)]), []),
        "optimizer.d.betas.1",
        "T11",
        "after 30 steps",
    ),
    "a penalty in the first step only": Case(
        (SPECTRAL, [{"kind": "r1", "every": 12}]),
        (SPECTRAL, [{"kind": "r1", "every": 11}]),
        "tricks.0.every",
        "T06b",
        "only in the first",
    ),
}


def built(how: tuple[Table, list[Table]], world: str) -> Recipe:
    changes, acting = how
    return recipe("points" if world == "points" else "pictures", *acting, **changes)


def found(told: Recipe, world: str) -> Findings:
    shape = {"points": (2,), "pictures": (1, 8, 8)}.get(world)
    return check_compatibility(told, shape, 0 if world == "points" else 4)


def exactly(findings: Findings, field: str, tip: str, word: str) -> None:
    """This warning and no other, and no refusal."""
    assert findings.refusals == []
    assert [warning.field for warning in findings.warnings] == [field]
    (one,) = findings.warnings
    assert word in one.message
    assert one.tip == tip
    assert tip in {told.id for told in catalogue.tips()}
    assert len(one.cure) > 8


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_broken_one_is_warned_of_that_alone(case: Case) -> None:
    exactly(found(built(case.broken, case.world), case.world), case.field, case.tip, case.word)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_is_said_of_its_twin(case: Case) -> None:
    world = "pictures" if case.world == "stacked" else case.world
    assert found(built(case.sound, world), world) == Findings()


# ---- what only the data and the players tell -------------------------------------------------------------


def noise(n: int) -> np.ndarray:
    """n pictures, each another."""
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), np.uint8)


def saved(file: Path, images: np.ndarray, labels: Any = None) -> Table:
    arrays = {"images": images} | ({} if labels is None else {"labels": np.asarray(labels)})
    np.savez(file, **arrays)
    return {"data": {"kind": "npz", "path": str(file), "size": 8, "held_out": 0.0}}


def few(file: Path, n: int) -> Table:
    return saved(file, noise(n)) | {"batch": 64}


def coloured(file: Path, plain: int) -> Table:
    """Of 200, some are of one colour, each of another."""
    images = noise(200)
    images[:plain] = np.arange(plain)[:, None, None, None] * 50
    return saved(file, images)


def copied(file: Path, copies: int) -> Table:
    images = noise(200)
    images[100 : 100 + copies] = images[:copies]
    return saved(file, images)


def plain_copies(file: Path, copies: int) -> Table:
    """All copies are of one colour, and are not told twice."""
    images = noise(200)
    images[:copies] = 7
    return saved(file, images)


def sorted_into(file: Path, folders: int) -> Table:
    return saved(file, noise(120), np.arange(120) * folders // 120)


def widths(file: Path, g: int, d: int) -> Table:
    mlp = {"kind": "mlp", "depth": 1}
    return saved(file, noise(120)) | {"network": {"g": mlp | {"width": g}, "d": mlp | {"width": d}}}


class Made(NamedTuple):
    """How the data or the players are made, what is broken and what is sound."""

    make: Callable[..., Table]
    broken: tuple[int, ...]
    sound: tuple[int, ...]
    field: str
    tip: str
    word: str


MADE: dict[str, Made] = {
    "fewer pictures than a batch": Made(few, (63,), (64,), "batch", "M02", "there are only 63"),
    "pictures of one colour": Made(coloured, (3,), (2,), "data", "T01", "3 of 200 images are of a single colour"),
    "many of one colour": Made(plain_copies, (20,), (1,), "data", "T01", "20 of 200 images are of a single colour"),
    "copies": Made(copied, (3,), (2,), "data", "M02", "3 of 200 images are copies"),
    "one folder": Made(sorted_into, (1,), (2,), "data", "T13", "of one class, '0'"),
    "hardly classes": Made(sorted_into, (41,), (40,), "data", "T13", "41 classes for 120 images"),
    "a folder a picture": Made(sorted_into, (120,), (30,), "data", "T13", "120 classes for 120 images"),
    "a small D": Made(widths, (240, 2), (16, 16), "network.g", "T22", "G has"),
    "a small G": Made(widths, (1, 60), (4, 16), "network.d", "T22", "D has"),
}


def looked_at(table: Table) -> Findings:
    changes = {"steps": 12, "batch": 8, **SPECTRAL} | table
    return checking.check(recipe("pictures", **changes), device="cpu", precision="fp32").findings


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps are timed: only what is found is wanted."""
    monkeypatch.setattr(checking, "_estimate", lambda _: None)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_broken_data_or_players_are_warned_of_alone(made: Made, tmp_path: Path) -> None:
    exactly(looked_at(made.make(tmp_path / "p.npz", *made.broken)), made.field, made.tip, made.word)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_nothing_is_said_of_sound_ones(made: Made, tmp_path: Path) -> None:
    assert looked_at(made.make(tmp_path / "p.npz", *made.sound)) == Findings()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"g": 2000, "d": 100}, None),
        ({"g": 2001, "d": 100}, "G has 20 times as many weights as D: 2,001 against 100"),
        ({"g": 100, "d": 5000}, "D has 50 times as many weights as G: 5,000 against 100"),
        ({"g": 21, "d": 0}, "G has 21 times as many weights as D: 21 against 0"),
    ],
)
def test_how_far_apart_two_players_may_be(sizes: dict[str, int], said: str | None) -> None:
    findings = Findings()
    checking._compare_sizes(sizes, findings)
    assert [warning.message for warning in findings.warnings] == ([] if said is None else [said])
    if said is not None:
        larger, smaller = sorted(sizes, key=sizes.__getitem__, reverse=True)
        (one,) = findings.warnings
        assert one.field == f"network.{larger}"
        assert one.cure == f"set network.{smaller}.width higher or network.{larger}.width lower"


# ---- none is left out ------------------------------------------------------------------------------------


def places(module: ModuleType, name: str) -> dict[int, str]:
    """Where a module calls `name`: each line of such a call, with the function it stands in and the call's line."""
    there: dict[int, str] = {}
    for function in ast.parse(inspect.getsource(module)).body:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                assert isinstance(function, ast.FunctionDef)
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    there[line] = f"{function.name}, line {node.lineno}"
    return there


def listening(monkeypatch: pytest.MonkeyPatch, module: ModuleType, behind: str = "") -> set[int]:
    """From now on: the lines of `module` that make a finding, seen from behind a function if that is named."""
    lines: set[int] = set()

    def heard(*told: str) -> Finding:
        frame = sys._getframe(1)
        if behind and frame.f_code.co_name == behind and frame.f_back is not None:
            frame = frame.f_back
        lines.add(frame.f_lineno)
        return Finding(*told)

    monkeypatch.setattr(module, "Finding", heard)
    return lines


def test_no_rule_of_the_recipe_is_without_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, lines = places(doubting, "Finding"), listening(monkeypatch, doubting)
    for case in CASES.values():
        found(built(case.broken, case.world), case.world)
    assert len(set(wanted.values())) >= 16
    assert {wanted[line] for line in lines} == set(wanted.values())


@pytest.mark.usefixtures("cheap")
def test_no_rule_of_data_or_players_is_without_a_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But two: a part that can't be built and a D that learns nothing are in training/test_check.py."""
    wanted = places(checking, "warn") | places(checking, "Finding")
    wanted = {line: rule for line, rule in wanted.items() if not rule.startswith("check,")}
    lines = listening(monkeypatch, checking, behind="warn")
    for number, made in enumerate(MADE.values()):
        looked_at(made.make(tmp_path / f"{number}.npz", *made.broken))
    heard = {wanted[line] for line in lines}
    inside = {rule for line, rule in wanted.items() if "def warn" in _line_before(line)}
    assert heard == set(wanted.values()) - inside
    assert len(heard) >= 6


def _line_before(line: int) -> str:
    return inspect.getsource(checking).splitlines()[line - 2]


def test_every_rule_is_asked() -> None:
    """A rule that stands in the file and is not in the list would never speak."""
    source = ast.parse(inspect.getsource(doubting))
    rules = {
        node.name
        for node in source.body
        if isinstance(node, ast.FunctionDef) and [a.arg for a in node.args.args] == ["recipe", "findings"]
    }
    (asked,) = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "find_suspicious"]
    named = {node.id for node in ast.walk(asked) if isinstance(node, ast.Name)}
    assert rules - {"find_suspicious"} <= named


@pytest.mark.parametrize(
    ("wide", "cure"),
    [
        (("g", "d"), "set network.d.width higher or network.g.width lower"),
        (("g",), "set network.g.width lower"),
        ((), "give D more channels, or G fewer"),
    ],
)
def test_who_has_a_width_is_advised_to_change_it(wide: tuple[str, ...], cure: str) -> None:
    findings = Findings()
    checking._compare_sizes({"g": 5000, "d": 1}, findings, wide)
    assert findings.warnings[0].cure == cure


def test_designs_that_are_sound_as_published() -> None:
    """R3GAN's G ends linearly, SNGAN's and SAGAN's D has ReLU between skips; elsewhere the same is warned of."""
    for name in ("hinge-sngan", "sagan", "r3gan"):
        assert not check_compatibility(decode(load_table(name))).warnings
    relu = load_table("dcgan")
    relu["network"]["d"]["activation"] = "relu"
    assert [one.field for one in check_compatibility(decode(relu)).warnings] == ["network.d.activation"]
    linear = load_table("dcgan")
    linear["network"]["g"]["output"] = "linear"
    assert [one.field for one in check_compatibility(decode(linear)).warnings] == ["network.g.output"]
