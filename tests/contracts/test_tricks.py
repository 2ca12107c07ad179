"""The exam that every trick sits. A new trick joins by a row in `EXAM`; without one it fails by name.

A row states three things that nobody can guess: settings under which the trick surely acts, settings that
mean "strength zero", and what is different in the game once it acts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import BATCH, WORLDS, Session, recipe, session, source, unequal
from poise import seams
from poise.core import Side
from poise.entries import kinds
from poise.objectives.base import Objective
from poise.randomness import Dice
from poise.recipe.fit import fit
from poise.recipe.model import Recipe
from poise.recipe.read import decode
from poise.recipe.text import parse
from poise.training.build import build
from poise.training.machine import Machine
from poise.tricks.base import TrickEntry

SEAMS = (
    seams.Surgery,
    seams.Opponent,
    seams.Offer,
    seams.View,
    seams.Aim,
    seams.Term,
    seams.Grads,
    seams.After,
)
TRICKS = kinds(TrickEntry, "poise.tricks")
OBJECTIVES = kinds(Objective, "poise.objectives")
CODE = re.compile(r"[TM]\d\d[a-z]?")

Play = Callable[[bool, int], Session]
"""play(on, steps): a fresh session with the trick in its strong settings, or without it."""


@dataclass(frozen=True)
class Row:
    """What a trick says about itself.

    Attributes:
        strong: settings under which three steps of a tiny run feel it.
        zero: settings that mean strength zero, which must equal absence bit for bit.
        acts: asserts what is different with it.
        global_dice: whether it may draw from PyTorch's global generator (dropout can't do otherwise).
    """

    strong: dict[str, Any]
    zero: dict[str, Any]
    acts: Callable[[Play], None]
    global_dice: bool = False


def averages(play: Play) -> None:
    """Samples come from the average of every G so far, worked out here anew; training goes on as it would."""
    run = play(True, 0)
    expected = [w.detach().double().clone() for w in run.game.g.weights]
    beta = 0.5 ** (BATCH / 16)
    for _ in range(3):
        run.play(1)
        expected = [
            beta * e + (1 - beta) * w.detach().double() for e, w in zip(expected, run.game.g.weights, strict=True)
        ]
    shown = run.game.shown()
    for ours, theirs, live in zip(expected, shown.parameters(), run.game.g.weights, strict=True):
        assert torch.allclose(ours.float(), theirs, atol=1e-6)
        assert not torch.equal(theirs, live)
    assert run.game.shown(raw=True) is run.game.g.net


def charges_for_slope(play: Play) -> None:
    """The first row shows half the squared slope at the reals; after some steps D is flatter than without."""

    def slope(run: Session) -> Tensor:
        real = run.of(Side.D)[0].real.clone().requires_grad_()
        (grad,) = torch.autograd.grad(run.game.d.net(real).score.sum(), real)
        return grad.flatten(1).square().sum(1).mean() / 2

    fresh, first = play(True, 0), play(True, 1)
    fresh.moves = first.moves
    assert first.ledger.stats()["d/r1"].mean == pytest.approx(float(slope(fresh)), rel=1e-5)
    assert "d/r1" not in play(False, 1).ledger.stats()
    assert slope(play(True, 25)) < 0.5 * slope(play(False, 25))


def blurs(play: Play) -> None:
    """D's network is given the piles plus noise of the right size in both players' moves, and without it the piles."""

    def blur(run: Session) -> list[Tensor]:
        shown, at = torch.cat(run.seen), 0
        found: list[Tensor] = []
        for move in run.moves:
            for pile in (move.real, move.fake):
                if pile is not None:
                    found.append(shown[at : at + len(pile)] - pile)
                    at += len(pile)
        assert at == len(shown)
        return found

    for noise in blur(play(True, 3)):
        # chi-square: five standard errors of a standard deviation
        assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * noise.numel())
    assert all(not noise.any() for noise in blur(play(False, 3)))


def asks_for_less(play: Play) -> None:
    """D pays the cross-entropy of 0.9 for the reals; the first row is that number."""
    run = play(True, 1)
    exchange = run.of(Side.D)[0].exchange
    real, fake = exchange.score("real"), exchange.score("fake")
    wanted = ((0.9 * softplus(-real) + 0.1 * softplus(real)).mean() + softplus(fake).mean()).detach()
    assert run.ledger.stats()["d/adversarial"].mean == pytest.approx(float(wanted) / 2, rel=1e-5)
    assert unequal(weights(run, Side.D), weights(play(False, 1), Side.D))


EXAM: dict[str, Row] = {
    "averaged_weights": Row(
        strong={"half_life": 16.0, "ramp_up": 0.0},
        zero={"half_life": 0.0},
        acts=averages,
    ),
    "instance_noise": Row(strong={"sigma": 0.5}, zero={"sigma": 0.0}, acts=blurs),
    "r1": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, acts=charges_for_slope),
    "soft_labels": Row(
        strong={"real": [0.9, 0.9], "fake": [0.0, 0.0]},
        zero={"real": [1.0, 1.0], "fake": [0.0, 0.0]},
        acts=asks_for_less,
    ),
}


def row(kind: str) -> Row:
    if kind not in EXAM:
        cure = "state its strong and zero settings and how it acts"
        pytest.fail(f"the trick '{kind}' has no row in EXAM of tests/contracts/test_tricks.py: {cure}")
    return EXAM[kind]


def strong(kind: str) -> dict[str, Any]:
    return {"kind": kind, **row(kind).strong}


def weights(run: Session, side: Side) -> dict[str, Tensor]:
    return dict(run.game.players[side].net.named_parameters())


@cache
def fits(world: str, kind: str, objective: str = "non_saturating") -> bool:
    return not fit(recipe(world, strong(kind), objective={"kind": objective}), source(world).shape).refusals


def worlds(kind: str) -> list[str]:
    """The worlds that take the trick under some objective; the tests below play in each."""
    return [world for world in WORLDS if fits(world, kind)]


every_trick = pytest.mark.parametrize("kind", list(TRICKS))


def test_the_table_has_no_row_for_a_trick_that_is_gone() -> None:
    assert set(EXAM) <= set(TRICKS)


def test_a_trick_without_a_row_fails_by_name() -> None:
    with pytest.raises(pytest.fail.Exception, match="'nobody' has no row in EXAM"):
        row("nobody")


@every_trick
def test_builds_from_its_defaults(kind: str) -> None:
    entry = TRICKS[kind]()
    nets = {side: player.net for side, player in session("points").game.players.items()}
    trick = entry.build("its_name", nets)
    assert trick.name == "its_name"
    assert not hasattr(nn.ModuleDict(), kind), "a game keeps its tricks in a ModuleDict, which needs that name itself"
    assert isinstance(trick, SEAMS), "a trick acts at one of the seams"
    assert trick.sides
    assert trick.sides <= seams.BOTH


@every_trick
@pytest.mark.parametrize("settings", ["defaults", "strong", "zero"])
def test_survives_toml(kind: str, settings: str) -> None:
    chosen = {} if settings == "defaults" else getattr(row(kind), settings)
    before = recipe("points", {"kind": kind, **chosen})
    after = decode(parse(before.to_toml(), "recipe.toml"))
    assert after == before
    assert after.hash == before.hash
    assert isinstance(after.tricks[0], TRICKS[kind])
    assert before.hash != recipe("points").hash


@every_trick
def test_says_where_it_comes_from(kind: str) -> None:
    entry = TRICKS[kind]
    assert CODE.fullmatch(entry.tip)
    assert re.search(r"\b(19|20)\d\d\b|ganhacks \d+", entry.source), "name the paper and its year"
    for number in re.findall(r"arXiv:(\S+?)(?=[;,\s]|$)", entry.source):
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number)
    assert entry.__doc__


@every_trick
@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("world", WORLDS)
def test_plays_with_every_objective_or_is_refused_with_a_cure(kind: str, objective: str, world: str) -> None:
    told = recipe(world, strong(kind), objective={"kind": objective})
    findings = fit(told, source(world).shape)
    for finding in findings.refusals + findings.warnings:
        assert finding.field
        assert finding.message
        assert finding.cure
        assert CODE.fullmatch(finding.tip)
    if findings.refusals:
        return
    run = Session(told, source(world))
    before = run.saved()
    run.play(3)
    for name, tensor in run.saved().items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all(), name
    after = run.saved()
    stuck = [n for n in before if n.startswith(("game/d.net", "game/g.net")) and torch.equal(before[n], after[n])]
    assert not stuck, "three steps move every weight"


@every_trick
def test_fits_something(kind: str) -> None:
    """Without this a trick that everything refuses would pass all the rest."""
    assert worlds(kind), "no world takes this trick with the original game"


@every_trick
@pytest.mark.parametrize("world", WORLDS)
def test_resumes_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    whole = session(world, strong(kind)).play(6)
    half = session(world, strong(kind)).play(3)
    assert unequal(half.resumed().play(3).saved(), whole.saved()) == []


@every_trick
@pytest.mark.parametrize("world", WORLDS)
def test_strength_zero_equals_absent_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    without = session(world).play(3)
    zero = session(world, {"kind": kind, **row(kind).zero}).play(3)
    own = f"game/tricks.{kind}."
    saved = {name: tensor for name, tensor in zero.saved().items() if not name.startswith(own)}
    assert unequal(saved, without.saved()) == []
    ours, theirs = zero.game.shown().eval(), without.game.shown().eval()
    latents = without.moves[0].latents
    assert torch.equal(ours(latents), theirs(latents)), "samples are what they would be without it"


class Noted(Dice):
    """Dice that remember which streams were asked for, and how often."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asked: Counter[tuple[Any, ...]] = Counter()

    def __call__(self, name: str, *index: int) -> torch.Generator:
        self.asked[name, *index] += 1
        return super().__call__(name, *index)


@every_trick
@pytest.mark.parametrize("world", WORLDS)
def test_moves_nobody_elses_dice(kind: str, world: str) -> None:
    """Latents, data order, first weights and the global generator are the same with and without the trick."""
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    def run(*tricks: dict[str, Any]) -> tuple[Session, Noted, list[Tensor]]:
        dice = Noted(5)
        played = Session(recipe(world, *tricks, seed=5), source(world), dice=dice)
        first = {f"{s}/{n}": w.clone() for s in Side for n, w in weights(played, s).items()}
        settled: list[Tensor] = []
        for _ in range(3):
            played.play(1)
            settled.append(torch.get_rng_state())
        return played, dice, [first, settled]

    (a, dice_a, (first_a, settled_a)), (b, dice_b, (first_b, settled_b)) = run(), run(strong(kind))
    for stream, times in dice_a.asked.items():
        if stream[0] != "data":  # G may look at the reals of D's move once more
            assert dice_b.asked[stream] == times, "nobody draws from somebody else's stream"
    for name, *_ in dice_b.asked.keys() - dice_a.asked.keys():
        assert kind in name.split("/"), f"a stream of its own carries the trick's name, unlike '{name}'"
    shared = first_a.keys() & first_b.keys()
    assert shared
    assert all(torch.equal(first_a[name], first_b[name]) for name in shared)
    assert len(a.moves) == len(b.moves)
    for one, other in zip(a.moves, b.moves, strict=True):
        assert torch.equal(one.latents, other.latents)
        if one.real is not None:
            assert torch.equal(one.real, other.real)
    if not row(kind).global_dice:
        assert all(torch.equal(x, y) for x, y in zip(settled_a, settled_b, strict=True))


@every_trick
@pytest.mark.parametrize("world", WORLDS)
def test_acts(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    def play(on: bool, steps: int) -> Session:
        return session(world, *([strong(kind)] if on else [])).play(steps)

    row(kind).acts(play)


# ---------------------------------------------------------------- all tricks on


def everything(world: str) -> Recipe:
    """A recipe with every trick that fits this world, R1 and its like in every second step."""
    tricks: list[dict[str, Any]] = []
    for kind in TRICKS:
        if fits(world, kind):
            lazy = {"every": 2} if "every" in TRICKS[kind].model_fields else {}
            tricks.append(strong(kind) | lazy)
    return recipe(world, *tricks, tempo={"kind": "ratio", "d": 2, "g": 1})


@pytest.mark.parametrize("world", WORLDS)
def test_all_tricks_together_resume_after_every_step(world: str) -> None:
    """Six steps in one go, and the same six with a save and a fresh process after each."""
    whole = Session(everything(world), source(world)).play(6)
    chained = Session(everything(world), source(world)).play(1)
    for _ in range(5):
        chained = chained.resumed().play(1)
    assert unequal(chained.saved(), whole.saved()) == []


@pytest.mark.parametrize("world", WORLDS)
def test_losing_any_saved_tensor_is_noticed(world: str) -> None:
    """The exam's teeth: wipe one tensor of a save after another, and the run never ends up in the same place."""
    half = Session(everything(world), source(world)).play(3)
    goal = half.resumed().play(2).saved()
    harmless = []
    for name, tensor in half.saved().items():
        if name.endswith("num_batches_tracked") or not tensor.any():
            continue  # an average copies that counter anew in each move
        damaged = half.saved() | {name: torch.zeros_like(tensor)}
        if unequal(half.resumed(damaged).play(2).saved(), goal) == []:
            harmless.append(name)
    assert harmless == [], "these are saved and make no difference"


@pytest.mark.parametrize("kind", list(TRICKS))
def test_the_same_trick_twice_has_two_names_and_two_streams(kind: str) -> None:
    """A second one must not borrow the first one's dice or its place in a save."""
    told = recipe("points", strong(kind), strong(kind))
    assert told.trick_names() == [kind, f"{kind}_2"]
    dice = Noted(0)
    game = build(told, (2,), Machine(torch.device("cpu"), "fp32"), dice)
    assert list(game.tricks) == [kind, f"{kind}_2"]
    run = Session(told, source("points"), dice=dice).play(1)
    own = {name.replace(kind, "*", 1) for name, *_ in dice.asked if kind in name.split("/")}
    second = {name.replace(f"{kind}_2", "*", 1) for name, *_ in dice.asked if f"{kind}_2" in name.split("/")}
    assert own == second
    assert run.done == 1
