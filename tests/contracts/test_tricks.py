"""The exam that every trick sits. A new trick joins by a row in `rows/`; without one it fails by name.

A row states three things that nobody can guess: settings under which the trick surely acts, settings that
mean "strength zero", and what is different in the game once it acts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from itertools import combinations, product
from pkgutil import iter_modules
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts import rows
from contracts.rows import averages, hybrids, inputs, labels, memory, networks, penalties, steps
from contracts.rows.base import Row, weights
from contracts.sampling import SAMPLE_OR_ALL, sample
from contracts.tiny import CODED, WORLDS, Session, misfits, no_waiting, recipe, session, source, suited, unequal
from poise.core import hooks
from poise.core.config import find_components
from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.step import alternate
from poise.networks.base import call_network
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import Findings
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import parse_toml
from poise.runs.state_tensors import load_tensors
from poise.tricks.base import TrickConfig, TrickContext

SEAMS = (
    hooks.NetworkTransform,
    hooks.OpponentSwap,
    hooks.FakeReplacement,
    hooks.InputTransform,
    hooks.TargetTransform,
    hooks.SampleSelection,
    hooks.LossTerm,
    hooks.GradientTransform,
    hooks.PostUpdate,
)
TRICKS = find_components(TrickConfig, "poise.tricks")
OBJECTIVES = find_components(Objective, "poise.objectives")
CODE = re.compile(r"[TM]\d\d[a-z]?")

FILES = (averages, hybrids, inputs, labels, memory, networks, penalties, steps)
EXAM: dict[str, Row] = {kind: row for file in FILES for kind, row in file.ROWS.items()}


def row(kind: str) -> Row:
    if kind not in EXAM:
        cure = "state its strong and zero settings and how it acts"
        pytest.fail(f"the trick '{kind}' has no row in EXAM, in no ROWS of tests/contracts/rows/*.py: {cure}")
    return EXAM[kind]


def strong(kind: str) -> dict[str, Any]:
    return {"kind": kind, **row(kind).strong}


def examined(kind: str) -> tuple[str, ...]:
    """Where a trick sits the exam: what reads codes needs an encoder, and to all others one makes no difference."""
    settings = EXAM[kind].strong if kind in EXAM else {}
    return (CODED,) if TRICKS[kind](**settings).needs_codes else WORLDS


@cache
def fits(world: str, kind: str, objective: str = "non_saturating") -> bool:
    return not misfits(recipe(world, strong(kind), objective={"kind": objective}), world).refusals


def worlds(kind: str) -> list[str]:
    """The worlds that take the trick under some objective; the tests below play in each."""
    return [world for world in examined(kind) if fits(world, kind)]


EVERYWHERE = (*WORLDS, CODED)
every_trick = pytest.mark.parametrize("kind", list(TRICKS))
in_its_worlds = pytest.mark.parametrize(
    ("kind", "world"), [(kind, world) for world in EVERYWHERE for kind in TRICKS if world in examined(kind)]
)


def test_the_table_has_no_row_for_a_trick_that_is_gone() -> None:
    assert set(EXAM) <= set(TRICKS)


def test_every_file_of_rows_is_in_the_table_and_no_trick_has_two() -> None:
    there = {module.name for module in iter_modules(rows.__path__)} - {"base"}
    assert there == {file.__name__.rpartition(".")[2] for file in FILES}
    assert len(EXAM) == sum(len(file.ROWS) for file in FILES)


def test_a_trick_without_a_row_fails_by_name() -> None:
    with pytest.raises(pytest.fail.Exception, match="'nobody' has no row in EXAM"):
        row("nobody")


@every_trick
def test_builds_from_its_defaults(kind: str) -> None:
    entry, told = TRICKS[kind](), session("points")
    nets = {side: player.net for side, player in told.game.players.items()}
    objective = told.recipe.objective
    trick = entry.build(
        "its_name", TrickContext(nets, source("points").spec(), objective.decision_threshold, objective)
    )
    assert trick.name == "its_name"
    assert not hasattr(nn.ModuleDict(), kind), "a game keeps its tricks in a ModuleDict, which needs that name itself"
    assert isinstance(trick, SEAMS), "a trick acts at one of the seams"
    assert trick.sides
    assert trick.sides <= hooks.BOTH_SIDES


@every_trick
@pytest.mark.parametrize("settings", ["defaults", "strong", "zero"])
def test_survives_toml(kind: str, settings: str) -> None:
    chosen = {} if settings == "defaults" else getattr(row(kind), settings)
    before = recipe("points", {"kind": kind, **chosen})
    after = decode(parse_toml(before.to_toml(), "recipe.toml"))
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


@cache
def beside(kind: str) -> dict[tuple[str, str], tuple[Recipe, Findings]]:
    """The trick with each objective in each world."""
    found: dict[tuple[str, str], tuple[Recipe, Findings]] = {}
    for objective, world in product(OBJECTIVES, EVERYWHERE):
        if world in (*WORLDS, *examined(kind)):
            told = recipe(world, strong(kind), **suited(world, objective))
            found[objective, world] = told, misfits(told, world)
    return found


@every_trick
def test_goes_with_every_objective_or_is_refused_with_a_cure(kind: str) -> None:
    for _, findings in beside(kind).values():
        for finding in findings.refusals + findings.warnings:
            assert finding.field
            assert finding.message
            assert finding.cure
            assert CODE.fullmatch(finding.tip)


@SAMPLE_OR_ALL
@every_trick
def test_plays_with_every_objective_that_takes_it(kind: str, whole: bool) -> None:
    """In every run with each of these objectives once, and in each world that takes it."""
    playable = [case for case, (_, findings) in beside(kind).items() if not findings.refusals]
    assert playable
    for objective, world in playable if whole else sample(playable, 1, seed=kind):
        moves_every_weight(beside(kind)[objective, world][0], world)


def moves_every_weight(told: Recipe, world: str) -> None:
    """In three finite steps."""
    run = Session(told, source(world))
    before = run.saved()
    run.play(3)
    for name, tensor in run.saved().items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all(), name
    after = run.saved()
    learning = ("game/d.net", "game/g.net", *(() if told.has_discriminator else ("game/g.encoder",)))
    stuck = [n for n in before if n.startswith(learning) and torch.equal(before[n], after[n])]
    # D's last bias moves both piles alike: no pull where scores are only compared, none between the hinge's edges
    assert [n for n in stuck if not n.endswith(("score.bias", "score.layer.bias"))] == [], (
        "three steps move every weight"
    )


@every_trick
def test_fits_something(kind: str) -> None:
    """Without this a trick that everything refuses would pass all the rest."""
    assert worlds(kind), "no world takes this trick with the original game"


@in_its_worlds
def test_resumes_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    whole = session(world, strong(kind)).play(6)
    half = session(world, strong(kind)).play(3)
    assert unequal(half.resumed().play(3).saved(), whole.saved()) == []


@in_its_worlds
def test_strength_zero_equals_absent_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    without = session(world).play(3)
    zero = session(world, {"kind": kind, **row(kind).zero}).play(3)
    own = (f"game/tricks.{kind}.", f"ledger/d/{kind}", f"ledger/g/{kind}")  # a trick may tell that it did nothing
    saved = {name: tensor for name, tensor in zero.saved().items() if not name.startswith(own)}
    assert unequal(saved, without.saved()) == []
    ours, theirs = zero.game.sampling_network().eval(), without.game.sampling_network().eval()
    latents, labels = without.moves[0].latents, without.moves[0].move.labels
    assert torch.equal(call_network(ours, latents, labels), call_network(theirs, latents, labels)), (
        "samples are what they would be without it"
    )


class Noted(RandomStreams):
    """Dice that remember which streams were asked for, and how often."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.asked: Counter[tuple[Any, ...]] = Counter()

    def __call__(self, name: str, *index: int) -> torch.Generator:
        self.asked[name, *index] += 1
        return super().__call__(name, *index)


@in_its_worlds
def test_moves_nobody_elses_dice(kind: str, world: str) -> None:
    """Latents, data order, first weights and the global generator are the same with and without the trick."""
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    def run(*tricks: dict[str, Any]) -> tuple[Session, Noted, list[Tensor]]:
        streams = Noted(5)
        played = Session(recipe(world, *tricks, seed=5), source(world), streams=streams)
        first = {f"{s}/{n}": w.clone() for s in Side for n, w in weights(played, s).items()}
        settled: list[Tensor] = []
        for _ in range(3):
            played.play(1)
            settled.append(torch.get_rng_state())
        return played, streams, [first, settled]

    (a, dice_a, (first_a, settled_a)), (b, dice_b, (first_b, settled_b)) = run(), run(strong(kind))
    for stream, times in dice_a.asked.items():
        if stream[0] != "data":  # G may look at the reals of D's move once more
            assert dice_b.asked[stream] == times, "nobody draws from somebody else's stream"
    for name, *_ in dice_b.asked.keys() - dice_a.asked.keys():
        if TRICKS[kind](**row(kind).strong).needs_codes and name in ("d/codes", "g/codes"):
            continue  # a move has one draw of codes, which all who read them share
        assert kind in name.split("/"), f"a stream of its own carries the trick's name, unlike '{name}'"
    shared = first_a.keys() & first_b.keys()
    assert shared
    assert all(torch.equal(first_a[name], first_b[name]) for name in shared)
    assert len(a.moves) == len(b.moves)
    for one, other in zip(a.moves, b.moves, strict=True):
        assert torch.equal(one.latents, other.latents)
        if one.real is not None:
            assert torch.equal(one.real, other.real)
    if not row(kind).uses_global_rng:
        assert all(torch.equal(x, y) for x, y in zip(settled_a, settled_b, strict=True))


@in_its_worlds
def test_acts(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    def play(on: bool, steps: int, **changes: Any) -> Session:
        return session(world, *([strong(kind)] if on else []), **changes).play(steps)

    row(kind).check(play)


# ---------------------------------------------------------------- all tricks on


MIDDLE: dict[str, dict[str, Any]] = {
    "adaptive_augment": {"every": 11},
    "mean_weights": {"every": 3, "last": 1},
    "past_selves": {"every": 4, "keep": 1, "duration": 2},
}
"""Settings with which a save after three steps stands in the middle of a period: all that is kept is still needed."""


@cache
def everything(world: str) -> Recipe:
    """A recipe with every trick that fits this world, R1 and its like in every second step.

    Of tricks that exclude each other the later ones by name are left out, as few as it takes.
    """
    fitting = [kind for kind in TRICKS if fits(world, kind)]

    def with_all_but(left_out: tuple[str, ...]) -> Recipe:
        tricks: list[dict[str, Any]] = []
        for kind in fitting:
            if kind not in left_out:
                lazy = {"every": 2} if "every" in TRICKS[kind].model_fields else {}
                tricks.append(strong(kind) | lazy | MIDDLE.get(kind, {}))
        return recipe(world, *tricks, tempo={"kind": "ratio", "d": 2, "g": 1})

    fewer = (with_all_but(some) for count in range(len(fitting)) for some in combinations(fitting[::-1], count))
    return next(told for told in fewer if not misfits(told, world).refusals)


def test_together_leaves_out_no_more_than_it_must() -> None:
    """Packing and a classifier's labels are the only two that can't be together, and only pictures can be moved."""
    there = {world: {str(trick.tag()) for trick in everything(world).tricks} for world in EVERYWHERE}
    for world in EVERYWHERE:
        fitting = {kind for kind in TRICKS if fits(world, kind)}
        assert fitting - there[world] == ({"packing"} if world == "labelled" else set())
    assert set.union(*there.values()) == set(TRICKS)
    hybrid = {kind for kind in TRICKS if examined(kind) == (CODED,)}
    assert there[CODED] == there["pictures"] | hybrid
    assert hybrid == set(hybrids.ROWS)


@pytest.mark.parametrize("world", EVERYWHERE)
def test_nothing_waits_for_the_device(world: str) -> None:
    """No value is read in four steps with all of them on; the row reads, and may."""
    run = Session(everything(world), source(world)).play(1)  # optimisers make their moments
    with no_waiting():
        for _ in range(4):
            alternate(run.game, run.batches, run.context(), run.metrics)
            run.done += 1
    assert run.metrics.reduce()["d/adversarial"].mean > 0


@pytest.mark.parametrize("world", EVERYWHERE)
def test_all_tricks_together_resume_after_every_step(world: str) -> None:
    """Six steps in one go, and the same six with a save and a fresh process after each."""
    whole = Session(everything(world), source(world)).play(6)
    chained = Session(everything(world), source(world)).play(1)
    for _ in range(5):
        chained = chained.resumed().play(1)
    assert unequal(chained.saved(), whole.saved()) == []


@cache
def kept(world: str) -> Session:
    """A run with everything on, after three steps."""
    return Session(everything(world), source(world)).play(3)


def worth_wiping(world: str) -> list[str]:
    """What is saved and is not zero anyway. An average copies the norms' counters anew in each move."""
    saved = kept(world).saved()
    return [name for name, tensor in saved.items() if tensor.any() and not name.endswith("num_batches_tracked")]


def alike(name: str) -> tuple[str, ...]:
    """What a tensor's name says but for the numbers of layers: those that are alike are saved by the same line."""
    return tuple(part for part in name.replace("/", ".").split(".") if not part.isdecimal())


MOST_WIPED = 30


@SAMPLE_OR_ALL
@pytest.mark.parametrize("world", EVERYWHERE)
def test_losing_any_saved_tensor_is_noticed(world: str, whole: bool) -> None:
    """The exam's teeth: wipe one tensor of a save after another, and the run never ends up in the same place.

    In every run some, at most one of those whose names differ only in the number of a layer; all in the slow walk.

    Of labelled and of coded pictures only what others don't have, shells around a network apart: it is slow.
    """
    half = kept(world)
    more = world in ("labelled", CODED)
    known = {name.replace("net.", "") for name in worth_wiping("pictures")} if more else set()
    names = [name for name in worth_wiping(world) if name.replace("net.", "") not in known]
    assert len(names) > 10
    if not whole:
        names = list({alike(name): name for name in names}.values())
        names = random.Random(0).sample(names, min(MOST_WIPED, len(names)))
    goal = half.resumed().play(2).saved()
    again = half.resumed()

    def goes_on(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Where two steps from here lead, always in the same process: to build a game takes longer than to play."""
        load_tensors(again.game, again.metrics, tensors)
        again.done = half.done
        again.moves.clear()
        again.seen.clear()
        return again.play(2).saved()

    assert unequal(goes_on(half.saved()), goal) == []
    harmless = []
    for name in names:
        damaged = half.saved()
        damaged[name] = torch.zeros_like(damaged[name])
        if unequal(goes_on(damaged), goal) == []:
            harmless.append(name)
    assert unequal(goes_on(half.saved()), goal) == [], "no damage outlives the next restore"
    assert harmless == [], "these are saved and make no difference"


@pytest.mark.parametrize("kind", list(TRICKS))
def test_the_same_trick_twice_has_two_names_and_two_streams(kind: str) -> None:
    """A second one must not borrow the first one's dice or its place in a save; or it is refused."""
    world = worlds(kind)[0]
    told = recipe(world, strong(kind), strong(kind))
    if misfits(told, world).refusals:
        assert TRICKS[kind](**row(kind).strong).replaces_all_fakes
        return
    assert told.trick_names() == [kind, f"{kind}_2"]
    streams = Noted(0)
    game = build_game(told, source(world).spec(), ComputeSettings(torch.device("cpu"), "fp32"), streams)
    assert list(game.tricks) == [kind, f"{kind}_2"]
    run = Session(told, source(world), streams=streams).play(1)
    own = {name.replace(kind, "*", 1) for name, *_ in streams.asked if kind in name.split("/")}
    second = {name.replace(f"{kind}_2", "*", 1) for name, *_ in streams.asked if f"{kind}_2" in name.split("/")}
    assert own == second
    assert run.done == 1
