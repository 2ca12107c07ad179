"""The contract that every trick must meet. A new trick is tested through a row in `rows/`; without one a test fails.

A row states what cannot be derived: settings with a visible effect, settings of strength zero, and what the trick
changes.
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
from contracts.rows import averages, codes, hybrids, inputs, labels, memory, networks, penalties, steps, translation
from contracts.rows.base import Row, weights
from contracts.sampling import SAMPLE_OR_ALL, sample
from contracts.tiny import (
    CODED,
    TRANSLATED,
    WORLDS,
    Session,
    changed_by_resuming,
    findings_of,
    no_waiting,
    recipe,
    session,
    source,
    suited,
    unequal,
)
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

HOOKS = (
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
WITHOUT_EFFECT_ON_SAMPLES = {"frozen_layers"}
"""Those that act on G when it is built, but not on what it computes."""
TIP_ID = re.compile(r"[TM]\d\d[a-z]?")

FILES = (averages, codes, hybrids, inputs, labels, memory, networks, penalties, steps, translation)
CONTRACT: dict[str, Row] = {kind: row for file in FILES for kind, row in file.ROWS.items()}


def row(kind: str) -> Row:
    if kind not in CONTRACT:
        cure = "add one with its strong and zero settings and a check of its effect"
        pytest.fail(f"the trick '{kind}' has no row in any ROWS of tests/contracts/rows/*.py: {cure}")
    return CONTRACT[kind]


def strong(kind: str) -> dict[str, Any]:
    return {"kind": kind, **row(kind).strong}


def candidate_worlds(kind: str) -> tuple[str, ...]:
    """The worlds in which a trick is tested: one that translates or one with an encoder if it needs that, or others."""
    settings = CONTRACT[kind].strong if kind in CONTRACT else {}
    if TRICKS[kind](**settings).directions:
        return (TRANSLATED,)
    return (CODED,) if TRICKS[kind](**settings).needs_codes else WORLDS


@cache
def fits(world: str, kind: str, objective: str = "non_saturating") -> bool:
    return not findings_of(recipe(world, strong(kind), objective={"kind": objective}), world).refusals


def worlds(kind: str) -> list[str]:
    """The candidate worlds that the trick fits with the default objective."""
    return [world for world in candidate_worlds(kind) if fits(world, kind)]


EVERYWHERE = (*WORLDS, CODED, TRANSLATED)
every_trick = pytest.mark.parametrize("kind", list(TRICKS))
in_each_world = pytest.mark.parametrize(
    ("kind", "world"), [(kind, world) for world in EVERYWHERE for kind in TRICKS if world in candidate_worlds(kind)]
)


def test_every_row_belongs_to_a_trick() -> None:
    assert set(CONTRACT) <= set(TRICKS)


def test_every_file_of_rows_is_used_and_no_trick_has_two_rows() -> None:
    modules = {module.name for module in iter_modules(rows.__path__)} - {"base"}
    assert modules == {file.__name__.rpartition(".")[2] for file in FILES}
    assert len(CONTRACT) == sum(len(file.ROWS) for file in FILES)


def test_a_trick_without_a_row_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="'missing' has no row in any ROWS"):
        row("missing")


@every_trick
def test_builds_from_its_defaults(kind: str) -> None:
    config, run = TRICKS[kind](), session("points")
    nets = {side: player.net for side, player in run.game.players.items()}
    objective = run.recipe.objective
    trick = config.build(
        "its_name",
        TrickContext(
            nets,
            source("points").spec(),
            objective.decision_threshold,
            objective,
            code_layout=run.recipe.latent.code_layout,
        ),
    )
    assert trick.name == "its_name"
    assert not hasattr(nn.ModuleDict(), kind), "a game keeps its tricks in a ModuleDict, whose attribute this is"
    assert isinstance(trick, HOOKS), "a trick acts at one of the hooks"
    assert trick.sides
    assert trick.sides <= hooks.BOTH_SIDES
    acts_on_g = isinstance(trick, hooks.NetworkTransform) and Side.G in trick.sides
    assert config.changes_generator == (acts_on_g and kind not in WITHOUT_EFFECT_ON_SAMPLES), "exports rely on it"


@every_trick
@pytest.mark.parametrize("settings", ["defaults", "strong", "zero"])
def test_round_trips_through_toml(kind: str, settings: str) -> None:
    chosen = {} if settings == "defaults" else getattr(row(kind), settings)
    before = recipe("points", {"kind": kind, **chosen})
    after = decode(parse_toml(before.to_toml(), "recipe.toml"))
    assert after == before
    assert after.hash == before.hash
    assert isinstance(after.tricks[0], TRICKS[kind])
    assert before.hash != recipe("points").hash


@every_trick
def test_names_its_tip_and_source(kind: str) -> None:
    config = TRICKS[kind]
    assert TIP_ID.fullmatch(config.tip)
    assert re.search(r"\b(19|20)\d\d\b|ganhacks \d+", config.source), "name the paper and its year"
    for number in re.findall(r"arXiv:(\S+?)(?=[;,\s]|$)", config.source):
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number)
    assert config.__doc__


@cache
def with_each_objective(kind: str) -> dict[tuple[str, str], tuple[Recipe, Findings]]:
    """Recipe and findings for the trick with each objective in each world."""
    found: dict[tuple[str, str], tuple[Recipe, Findings]] = {}
    for objective, world in product(OBJECTIVES, EVERYWHERE):
        if world in (*WORLDS, *candidate_worlds(kind)):
            candidate = recipe(world, strong(kind), **suited(world, objective))
            found[objective, world] = candidate, findings_of(candidate, world)
    return found


@every_trick
def test_fits_every_objective_or_is_rejected_with_a_cure(kind: str) -> None:
    for _, findings in with_each_objective(kind).values():
        for finding in findings.refusals + findings.warnings:
            assert finding.field
            assert finding.message
            assert finding.cure
            assert TIP_ID.fullmatch(finding.tip)


@SAMPLE_OR_ALL
@every_trick
def test_trains_with_every_objective_that_it_fits(kind: str, whole: bool) -> None:
    """With one of these objectives and worlds in every test run, and with all of them in the slow tests."""
    playable = [case for case, (_, findings) in with_each_objective(kind).items() if not findings.refusals]
    assert playable
    for objective, world in playable if whole else sample(playable, 1, seed=kind):
        check_every_weight_changes(with_each_objective(kind)[objective, world][0], world)


def check_every_weight_changes(candidate: Recipe, world: str) -> None:
    """Three steps are finite and change every weight that is not frozen."""
    run = Session(candidate, source(world))
    frozen = {f"game/{name}" for name, weight in run.game.named_parameters() if not weight.requires_grad}
    before = run.saved()
    run.play(3)
    for name, tensor in run.saved().items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all(), name
    after = run.saved()
    trained = ("game/d.net", "game/g.net", *(() if candidate.has_discriminator else ("game/g.encoder",)))
    unchanged = [n for n in before if n.startswith(trained) and torch.equal(before[n], after[n]) and n not in frozen]
    # D's last bias shifts all scores alike: no gradient if scores are only compared, or within the hinge's margins
    assert [n for n in unchanged if not n.endswith(("score.bias", "score.layer.bias"))] == [], (
        "three steps change every weight"
    )


@every_trick
def test_fits_some_world(kind: str) -> None:
    """Otherwise a trick that is rejected everywhere would pass all other tests."""
    assert worlds(kind), "no world fits this trick with the default objective"


@in_each_world
def test_resumes_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    assert changed_by_resuming(session(world, strong(kind)), 3) == []


@cache
def three_steps_without(world: str) -> Session:
    """A run without tricks, with which many are compared."""
    return session(world).play(3)


@in_each_world
def test_strength_zero_equals_absence_bit_for_bit(kind: str, world: str) -> None:
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")
    without = three_steps_without(world)
    zero = session(world, {"kind": kind, **row(kind).zero}).play(3)
    own = (f"game/tricks.{kind}.", f"ledger/d/{kind}", f"ledger/g/{kind}")  # a trick may log that it did nothing
    saved = {name: tensor for name, tensor in zero.saved().items() if not name.startswith(own)}
    assert unequal(saved, without.saved()) == []
    generator, generator_without = zero.game.sampling_network().eval(), without.game.sampling_network().eval()
    latents, labels = without.moves[0].latents, without.moves[0].move.labels
    assert torch.equal(call_network(generator, latents, labels), call_network(generator_without, latents, labels)), (
        "samples are the same as without it"
    )


class RecordingStreams(RandomStreams):
    """Random streams that count how often each was requested."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.requests: Counter[tuple[Any, ...]] = Counter()

    def __call__(self, name: str, *index: int) -> torch.Generator:
        self.requests[name, *index] += 1
        return super().__call__(name, *index)


class Recorded:
    """Three steps with recorded streams.

    Attributes:
        run: the run.
        streams: its streams.
        first: its initial weights.
        global_states: the state of the global generator after each step.
    """

    def __init__(self, world: str, *tricks: dict[str, Any]) -> None:
        self.streams = RecordingStreams(5)
        self.run = Session(recipe(world, *tricks, seed=5), source(world), streams=self.streams)
        self.first = {f"{s}/{n}": w.clone() for s in Side for n, w in weights(self.run, s).items()}
        self.global_states: list[Tensor] = []
        for _ in range(3):
            self.run.play(1)
            self.global_states.append(torch.get_rng_state())


@cache
def recorded_without(world: str) -> Recorded:
    """A run without tricks, with which many are compared."""
    return Recorded(world)


@in_each_world
def test_does_not_change_other_random_streams(kind: str, world: str) -> None:
    """Latents, data order, initial weights and the global generator are the same with and without the trick."""
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    a, b = recorded_without(world), Recorded(world, strong(kind))
    first_a, first_b, streams_a, streams_b = a.first, b.first, a.streams, b.streams
    for stream, count in streams_a.requests.items():
        if stream[0] != "data":  # G's move may use the real samples of D's move again
            assert streams_b.requests[stream] == count, "other streams are used as often as without the trick"
    for name, *_ in streams_b.requests.keys() - streams_a.requests.keys():
        if TRICKS[kind](**row(kind).strong).needs_codes and name in ("d/codes", "g/codes"):
            continue  # a move has one draw of codes, which is shared
        assert kind in name.split("/"), f"the trick's own streams must contain its name, unlike '{name}'"
    shared = first_a.keys() & first_b.keys()
    assert shared
    assert all(torch.equal(first_a[name], first_b[name]) for name in shared)
    assert len(a.run.moves) == len(b.run.moves)
    for one, other in zip(a.run.moves, b.run.moves, strict=True):
        assert torch.equal(one.latents, other.latents)
        if one.real is not None:
            assert torch.equal(one.real, other.real)
    if not row(kind).uses_global_rng:
        assert all(torch.equal(x, y) for x, y in zip(a.global_states, b.global_states, strict=True))


@pytest.mark.parametrize(
    ("kind", "world"),
    [
        pytest.param(kind, world, marks=pytest.mark.slow if world == "labelled" and "pictures" in worlds(kind) else [])
        for world in EVERYWHERE
        for kind in CONTRACT
        if world in candidate_worlds(kind)
    ],
)
def test_has_its_effect(kind: str, world: str) -> None:
    """On labelled images, if it fits pictures too, in the slow tests: the effect is that on pictures."""
    if world not in worlds(kind):
        pytest.skip(f"'{kind}' does not fit {world}")

    def play(on: bool, steps: int, **changes: Any) -> Session:
        return session(world, *([strong(kind)] if on else []), **changes).play(steps)

    row(kind).check(play)


# ---------------------------------------------------------------- all tricks on


MID_PERIOD: dict[str, dict[str, Any]] = {
    "adaptive_augment": {"every": 11},
    "mean_weights": {"every": 3, "last": 1},
    "past_selves": {"every": 4, "keep": 1, "duration": 2},
}
"""Settings with which a checkpoint after three steps is in the middle of a period, so that all state is needed."""


@cache
def all_fitting_tricks(world: str) -> Recipe:
    """A recipe with every trick that fits this world; lazy ones act in every second step.

    If tricks exclude each other, as few as possible are left out, those with later names first.
    """
    fitting = [kind for kind in TRICKS if fits(world, kind)]

    def with_all_but(left_out: tuple[str, ...]) -> Recipe:
        tricks: list[dict[str, Any]] = []
        for kind in fitting:
            if kind not in left_out:
                lazy = {"every": 2} if "every" in TRICKS[kind].model_fields else {}
                tricks.append(strong(kind) | lazy | MID_PERIOD.get(kind, {}))
        return recipe(world, *tricks, tempo={"kind": "ratio", "d": 2, "g": 1})

    fewer = (with_all_but(some) for count in range(len(fitting)) for some in combinations(fitting[::-1], count))
    return next(candidate for candidate in fewer if not findings_of(candidate, world).refusals)


def test_all_tricks_together_leave_out_no_more_than_necessary() -> None:
    """Only packing and a classifier's labels exclude each other, and only images can be augmented."""
    included = {world: {str(trick.tag()) for trick in all_fitting_tricks(world).tricks} for world in EVERYWHERE}
    for world in EVERYWHERE:
        fitting = {kind for kind in TRICKS if fits(world, kind)}
        assert fitting - included[world] == ({"packing"} if world == "labelled" else set())
    assert set.union(*included.values()) == set(TRICKS)
    hybrid = {kind for kind in TRICKS if candidate_worlds(kind) == (CODED,)}
    assert included[CODED] == included["pictures"] | hybrid
    assert hybrid == set(hybrids.ROWS)
    translating = {kind for kind in TRICKS if candidate_worlds(kind) == (TRANSLATED,)}
    assert translating == set(translation.ROWS)
    without_latent_space = {"path_length", "auxiliary_classifier", "infogan"}
    assert included[TRANSLATED] == (included["pictures"] | translating) - without_latent_space


@pytest.mark.parametrize("world", EVERYWHERE)
def test_nothing_waits_for_the_device(world: str) -> None:
    """No value is read in four steps with all tricks; reading the metrics may wait."""
    run = Session(all_fitting_tricks(world), source(world)).play(1)  # optimisers create their state
    with no_waiting():
        for _ in range(4):
            alternate(run.game, run.batches, run.context(), run.metrics)
            run.done += 1
    assert run.metrics.reduce()["d/adversarial"].mean > 0


@pytest.mark.parametrize("world", EVERYWHERE)
def test_all_tricks_together_resume_after_every_step(world: str) -> None:
    """Six steps at once, compared with the same six with a checkpoint and a resume after each."""
    whole = Session(all_fitting_tricks(world), source(world)).play(6)
    chained = Session(all_fitting_tricks(world), source(world)).play(1)
    for _ in range(5):
        chained = chained.resumed().play(1)
    assert unequal(chained.saved(), whole.saved()) == []


@cache
def run_with_everything(world: str) -> Session:
    """A run with all fitting tricks, after three steps."""
    return Session(all_fitting_tricks(world), source(world)).play(3)


def tensors_to_damage(world: str) -> list[str]:
    """The saved tensors that are not zero. Norm counters are excluded, since an average copies them in each move."""
    saved = run_with_everything(world).saved()
    return [name for name, tensor in saved.items() if tensor.any() and not name.endswith("num_batches_tracked")]


def name_without_layer_numbers(name: str) -> tuple[str, ...]:
    """A tensor's name without the numbers of layers: tensors that share it are saved by the same code."""
    return tuple(part for part in name.replace("/", ".").split(".") if not part.isdecimal())


MAX_DAMAGED = 8


@SAMPLE_OR_ALL
@pytest.mark.parametrize("world", EVERYWHERE)
def test_every_saved_tensor_affects_the_run(world: str, whole: bool) -> None:
    """If any one tensor of a checkpoint is set to zero, the run continues differently.

    By default a sample is tested, at most one of those whose names differ only in the number of a layer; all of them in
    the slow tests. Of labelled, coded and translated data, only tensors that others do not have are tested, wrappers
    around a network apart, because it is slow.
    """
    half = run_with_everything(world)
    only_new = world in ("labelled", CODED, TRANSLATED)
    known = {name.replace("net.", "") for name in tensors_to_damage("pictures")} if only_new else set()
    names = [name for name in tensors_to_damage(world) if name.replace("net.", "") not in known]
    assert len(names) > 10
    if not whole:
        names = list({name_without_layer_numbers(name): name for name in names}.values())
        names = random.Random(0).sample(names, min(MAX_DAMAGED, len(names)))
    undamaged, reused = half.resumed(), half.resumed()
    expected = [undamaged.play(1).saved() for _ in range(2)]

    def continues_as_expected(tensors: dict[str, Tensor], *damaged: str) -> bool:
        """Whether two steps are the same, always with the same game, because building one takes longer than playing.

        One step is enough if it changes another tensor than the damaged one.
        """
        load_tensors(reused.game, reused.metrics, tensors)
        reused.done = half.done
        reused.moves.clear()
        reused.seen.clear()
        if {*unequal(reused.play(1).saved(), expected[0])} - {*damaged}:
            return False
        return unequal(reused.play(1).saved(), expected[1]) == []

    assert continues_as_expected(half.saved())
    harmless = []
    for name in names:
        damaged = half.saved()
        damaged[name] = torch.zeros_like(damaged[name])
        if continues_as_expected(damaged, name):
            harmless.append(name)
    assert continues_as_expected(half.saved()), "loading a checkpoint undoes any damage"
    assert harmless == [], "these tensors are saved and have no effect"


@pytest.mark.parametrize("kind", list(TRICKS))
def test_a_duplicate_has_its_own_name_and_streams(kind: str) -> None:
    """A second trick of the same kind shares neither random streams nor state with the first; or it is rejected."""
    world = worlds(kind)[0]
    candidate = recipe(world, strong(kind), strong(kind))
    if findings_of(candidate, world).refusals:
        assert TRICKS[kind](**row(kind).strong).replaces_all_fakes
        return
    assert candidate.trick_names() == [kind, f"{kind}_2"]
    streams = RecordingStreams(0)
    game = build_game(candidate, source(world).spec(), ComputeSettings(torch.device("cpu"), "fp32"), streams)
    assert list(game.tricks) == [kind, f"{kind}_2"]
    run = Session(candidate, source(world), streams=streams).play(1)
    own = {name.replace(kind, "*", 1) for name, *_ in streams.requests if kind in name.split("/")}
    second = {name.replace(f"{kind}_2", "*", 1) for name, *_ in streams.requests if f"{kind}_2" in name.split("/")}
    assert own == second
    assert run.done == 1
