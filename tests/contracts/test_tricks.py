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
from functools import cache, partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import BATCH, WORLDS, Played, Session, misfits, recipe, session, source, suited, unequal
from poise import seams
from poise.core import Side
from poise.entries import kinds
from poise.networks.blocks import heard
from poise.objectives.base import Objective
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.recipe.read import decode
from poise.recipe.text import parse
from poise.seams import Stage
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

Play = Callable[..., Session]
"""play(on, steps, **changes): a fresh session with the trick in its strong settings, or without it."""


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


def lengths(run: Session, images: Tensor, labels: Tensor | None) -> Tensor:
    """How steep D is at each of some samples, B."""
    images = images.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(heard(run.game.d.net, images, labels).score.sum(), images)
    return grad.flatten(1).norm(dim=1)


def charges_for_slope(kind: str, pile: Literal["real", "fake"], play: Play) -> None:
    """The first row shows half the squared slope at that pile; after some steps D is flatter there than without."""

    def slope(run: Session, move: Played) -> float:
        images = getattr(move, pile)
        return float(lengths(run, images, move.exchange.labels).square().mean()) / 2

    first = play(True, 1)
    told, other = (first.ledger.stats(), play(False, 1).ledger.stats())
    assert told[f"d/{kind}"].mean == pytest.approx(slope(play(True, 0), first.of(Side.D)[0]), rel=1e-5)
    assert f"g/{kind}" not in told
    assert f"d/{kind}" not in other
    held, free = play(True, 25), play(False, 25)
    assert slope(held, held.of(Side.D)[-1]) < 0.5 * slope(free, free.of(Side.D)[-1])


def on_the_lines(move: Played) -> Tensor:
    """u x + (1 - u) G(z), with u from the trick's own stream."""
    assert move.real is not None
    u = torch.rand(BATCH, generator=move.moment.generator("wgan_gp")).view(-1, *(1 for _ in move.fake.shape[1:]))
    return u * move.real + (1 - u) * move.fake


def around_the_reals(move: Played) -> Tensor:
    """x + std(x) / 2 eps, with eps from the trick's own stream."""
    assert move.real is not None
    eps = torch.empty_like(move.real).normal_(generator=move.moment.generator("dragan"))
    return move.real + 0.5 * move.real.std() * eps


def wants_unit_slope(kind: str, where: Callable[[Played], Tensor], play: Play) -> None:
    """The first row shows how far from one D's slope is at those points; a D without norms comes nearer than alone."""

    def off(run: Session, move: Played) -> float:
        return float((lengths(run, where(move), move.exchange.labels) - 1).square().mean())

    first = play(True, 1)
    told, other = (first.ledger.stats(), play(False, 1).ledger.stats())
    assert told[f"d/{kind}"].mean == pytest.approx(off(play(True, 0), first.of(Side.D)[0]), rel=1e-4)
    assert f"g/{kind}" not in told
    assert f"d/{kind}" not in other
    network = first.recipe.canonical()["network"]
    network["d"]["norm"] = "none"
    held, free = (play(on, 25, network=network) for on in (True, False))
    late, alone = (sum(off(run, move) for move in run.of(Side.D)[-10:]) for run in (held, free))
    assert late < alone


def clips(play: Play) -> None:
    """After each step all of D's weights are within the limit, some of them at it, and G is left as it steps."""
    run, free = play(True, 0), play(False, 1)
    before = [w.detach().clone() for w in run.game.g.weights]
    for at in range(5):
        run.play(1)
        largest = max(float(w.detach().abs().max()) for w in run.game.d.weights)
        assert largest == pytest.approx(LIMIT, rel=1e-6)
        if at == 0:  # Adam's first step is as long as its rate, wherever the weight is
            moved = [(w.detach() - old).abs().max() for w, old in zip(run.game.g.weights, before, strict=True)]
            assert max(moved) < 1.01e-2
    assert max(float(w.detach().abs().max()) for w in run.game.g.weights) > LIMIT
    assert max(float(w.detach().abs().max()) for w in free.game.d.weights) > LIMIT


def holds_scores_together(play: Play) -> None:
    """Each row is worked out anew from running means that start at nothing; after some steps the piles lie nearer."""
    run = play(True, 4)
    rows, decay = run.ledger.state()["d/lecam"], 0.5
    means, weight = torch.zeros(2, dtype=torch.float64), 0.0
    for told, move in zip(rows, run.of(Side.D), strict=True):
        real, fake = (move.exchange.score(pile).detach().double() for pile in ("real", "fake"))
        wanted = 0.0
        if weight:
            of_real, of_fake = means / weight
            wanted = float(
                (real - of_fake).clamp_min(0).square().mean() + (of_real - fake).clamp_min(0).square().mean()
            )
        assert float(told) == pytest.approx(wanted, rel=1e-4, abs=1e-12)
        means = decay * means + (1 - decay) * torch.stack((real.mean(), fake.mean()))
        weight = decay * weight + 1 - decay
    assert float(rows[0]) == 0
    assert (rows[1:] > 0).all()

    def apart(run: Session) -> float:
        last = [move.exchange for move in run.of(Side.D)[-5:]]
        return sum(float((e.score("real").mean() - e.score("fake").mean()).abs().detach()) for e in last)

    assert apart(play(True, 40)) < 0.5 * apart(play(False, 40))


def pulls_codes_apart(play: Play) -> None:
    """G's first row is the mean squared cosine of all pairs of codes, pair by pair; D moves as it would, once."""
    run, without = play(True, 1), play(False, 1)
    codes = run.of(Side.G)[0].exchange.said("fake", "features").detach().double()
    cosines = [
        float(codes[i] @ codes[j] / (codes[i].norm() * codes[j].norm())) ** 2
        for i in range(BATCH)
        for j in range(BATCH)
        if i != j
    ]
    told = run.ledger.stats()
    assert told["g/pulling_away"].mean == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
    assert "d/pulling_away" not in told
    assert "g/pulling_away" not in without.ledger.stats()
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))


def names_classes(play: Play) -> None:
    """The first row is the cross entropy of both piles by a head that D has for it; then classes are learnt."""
    fresh, first, without = play(True, 0), play(True, 1), play(False, 1)
    labels = first.of(Side.D)[0].exchange.labels
    assert labels is not None

    def costs(run: Session, move: Played, *piles: Tensor | None) -> float:
        total = 0.0
        for pile in piles:
            logits = heard(run.game.d.net, pile, labels).classes.detach().double()
            total += float((logits.logsumexp(1) - logits[torch.arange(BATCH), labels]).mean())
        return total

    move, told = first.of(Side.D)[0], first.ledger.stats()
    assert told["d/auxiliary_classifier"].mean == pytest.approx(costs(fresh, move, move.real, move.fake), rel=1e-5)
    said = first.of(Side.G)[0].exchange.said("fake", "classes").detach().double()
    wanted = -said.log_softmax(1)[torch.arange(BATCH), labels].mean()
    assert told["g/auxiliary_classifier"].mean == pytest.approx(float(wanted), rel=1e-5)
    head = fresh.game.d.net.head
    assert (head.in_features, head.out_features) == (fresh.game.d.net.width, len(source("labelled").classes))
    assert without.of(Side.D)[0].exchange.verdicts["real"].classes is None
    assert not any(name.endswith("/class_accuracy") for name in without.ledger.stats())

    run = play(True, 150)
    run.ledger.stats()
    late = run.play(50).ledger.stats()
    assert late["d/class_accuracy"].mean > 0.6
    assert late["g/class_accuracy"].mean > 0.6


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


LIMIT = 0.05

EXAM: dict[str, Row] = {
    "auxiliary_classifier": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, acts=names_classes),
    "averaged_weights": Row(
        strong={"half_life": 16.0, "ramp_up": 0.0},
        zero={"half_life": 0.0},
        acts=averages,
    ),
    "dragan": Row(
        strong={"weight": 10.0, "spread": 0.5},
        zero={"weight": 0.0},
        acts=partial(wants_unit_slope, "dragan", around_the_reals),
    ),
    "instance_noise": Row(strong={"sigma": 0.5}, zero={"sigma": 0.0}, acts=blurs),
    "lecam": Row(strong={"weight": 10.0, "decay": 0.5}, zero={"weight": 0.0}, acts=holds_scores_together),
    "pulling_away": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, acts=pulls_codes_apart),
    "r1": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, acts=partial(charges_for_slope, "r1", "real")),
    "r2": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, acts=partial(charges_for_slope, "r2", "fake")),
    "soft_labels": Row(
        strong={"real": [0.9, 0.9], "fake": [0.0, 0.0]},
        zero={"real": [1.0, 1.0], "fake": [0.0, 0.0]},
        acts=asks_for_less,
    ),
    "weight_clipping": Row(strong={"limit": LIMIT}, zero={"limit": 1e6}, acts=clips),
    "wgan_gp": Row(
        strong={"weight": 10.0},
        zero={"weight": 0.0},
        acts=partial(wants_unit_slope, "wgan_gp", on_the_lines),
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
    return not misfits(recipe(world, strong(kind), objective={"kind": objective}), world).refusals


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
    trick = entry.build("its_name", Stage(nets, source("points").subject()))
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
    told = recipe(world, strong(kind), **suited(world, objective))
    findings = misfits(told, world)
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
    # D's last bias moves both piles alike: no pull where scores are only compared, none between the hinge's edges
    assert [n for n in stuck if not n.endswith("score.bias")] == [], "three steps move every weight"


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
    latents, labels = without.moves[0].latents, without.moves[0].exchange.labels
    assert torch.equal(heard(ours, latents, labels), heard(theirs, latents, labels)), (
        "samples are what they would be without it"
    )


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

    def play(on: bool, steps: int, **changes: Any) -> Session:
        return session(world, *([strong(kind)] if on else []), **changes).play(steps)

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
    world = worlds(kind)[0]
    told = recipe(world, strong(kind), strong(kind))
    assert told.trick_names() == [kind, f"{kind}_2"]
    dice = Noted(0)
    game = build(told, source(world).subject(), Machine(torch.device("cpu"), "fp32"), dice)
    assert list(game.tricks) == [kind, f"{kind}_2"]
    run = Session(told, source(world), dice=dice).play(1)
    own = {name.replace(kind, "*", 1) for name, *_ in dice.asked if kind in name.split("/")}
    second = {name.replace(f"{kind}_2", "*", 1) for name, *_ in dice.asked if f"{kind}_2" in name.split("/")}
    assert own == second
    assert run.done == 1
