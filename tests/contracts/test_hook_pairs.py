"""Two tricks at one hook: in either order both act, or the recipe is refused, or a warning names one of them.

That a trick acts is seen in what a run does: the fakes of each move, what D is shown, and the samples of the network
that samples come from. In a pair both act if these differ from what they are with the first alone, and from what they
are with the second alone. Every run plays a sample of the pairs that has every trick at every seam at which it acts;
`make slow` plays them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations_with_replacement
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from contracts.sampling import SAMPLE_OR_ALL, sample
from contracts.test_tricks import HOOKS, TRICKS, strong
from contracts.tiny import CODED, TRANSLATED, WORLDS, Session, findings_of, recipe, source, unequal, with_encoder
from poise.core import hooks
from poise.core.hooks import InputTransform, Trick, apply_input_transforms
from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext, Origin, Side
from poise.recipe.checks.compatibility import Findings
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.tricks.base import TrickConfig

STEPS = 8
"""The number of steps after which the pools are full and past copies have played."""

PLACES: tuple[tuple[str, dict[str, Any]], ...] = (
    *((world, {}) for world in (*WORLDS, CODED)),
    ("labelled", with_encoder("labelled")),
    (TRANSLATED, {}),
)
"""Worlds and changes to them, the cheapest first; the last but one has both labels and codes."""


class Behaviour(NamedTuple):
    """What a run does: the fake samples of each move, the inputs of D, and samples for some latents."""

    fakes: list[Tensor]
    shown_to_d: list[Tensor]
    samples: list[Tensor]


class Played(NamedTuple):
    """The behaviour of a run and its final state."""

    behaviour: Behaviour
    saved: dict[str, Tensor]


def recipe_of(place: int, kinds: tuple[str, ...]) -> Recipe:
    """The recipe of a tiny run with these tricks in their strong settings."""
    world, changes = PLACES[place]
    return recipe(world, *map(strong, kinds), **changes)


@cache
def findings(place: int, kinds: tuple[str, ...]) -> Findings:
    """The refusals and warnings of this recipe."""
    return findings_of(recipe_of(place, kinds), PLACES[place][0])


@cache
def played(place: int, kinds: tuple[str, ...]) -> Played:
    """A run with these tricks."""
    run = Session(recipe_of(place, kinds), source(PLACES[place][0])).play(STEPS)
    z, labels = run.moves[0].latents, run.moves[0].move.labels
    samples = generate(run.game.sampling_network(), z, labels, streams=RandomStreams(0))
    return Played(Behaviour([played_move.fake for played_move in run.moves], run.seen, [samples]), run.saved())


def alike(one: Behaviour, other: Behaviour) -> bool:
    """Whether both are equal bit for bit."""
    return all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


@cache
def built(kind: str) -> Trick:
    """The trick as a module."""
    place = next(place for place in range(len(PLACES)) if not findings(place, (kind,)).refusals)
    run = Session(recipe_of(place, (kind,)), source(PLACES[place][0]))
    return run.game.tricks[kind]  # type: ignore[return-value]


def pairs() -> list[tuple[str, str, str]]:
    """All hooks with two tricks that act there and have a game in common; they may be the same trick twice."""
    return [
        (seam.__name__, *both)
        for seam in HOOKS
        for both in combinations_with_replacement([kind for kind in TRICKS if isinstance(built(kind), seam)], 2)
        if not need_different_games(both)
    ]


def need_different_games(kinds: tuple[str, ...]) -> bool:
    """Whether one of them needs a G that translates, and the other one codes, labels or latents."""
    translated = next(place for place, (world, _) in enumerate(PLACES) if world == TRANSLATED)
    refused = [kind for kind in kinds if findings(translated, (kind,)).refusals]
    return bool(refused) and any(TRICKS[kind].model_validate(strong(kind)).directions for kind in kinds)


def idle(place: int, kinds: tuple[str, ...]) -> list[str]:
    """Which of two tricks could be left out without changing the run."""
    both = played(place, kinds).behaviour
    return [kinds[k] for k in (0, 1) if alike(both, played(place, kinds[1 - k : 2 - k]).behaviour)]


def complaint(kinds: tuple[str, str]) -> str | None:
    """What is wrong with two tricks in this order, or None."""
    fitting = [p for p in range(len(PLACES)) if not any(findings(p, (kind,)).refusals for kind in kinds)]
    allowed = [p for p in fitting if not findings(p, kinds).refusals]
    for place in fitting:
        for finding in findings(place, kinds).refusals:
            if not finding.cure:
                return f"{kinds} are refused without a cure"
    if not allowed:
        return None if fitting else f"no world takes each of {kinds}"
    place = allowed[0]
    if not (lazy := idle(place, kinds)):
        return None
    known = {finding.message for kind in kinds for finding in findings(place, (kind,)).warnings}
    new = [finding for finding in findings(place, kinds).warnings if finding.message not in known]
    named = [finding.message for finding in new if finding.field.startswith(("tricks.0", "tricks.1"))]
    if any(TrickConfig.duplicate_note in message for message in named):
        return f"of {kinds} both are said to act, and nothing is done by {lazy}"
    return None if named else f"in {PLACES[place][0]} with {kinds} nothing is done by {lazy}, and nobody says so"


def order_matters(kinds: tuple[str, str]) -> str | None:
    """Two tricks of different rank for which the order in the recipe makes a difference, or None."""
    if built(kinds[0]).rank == built(kinds[1]).rank:
        return None
    place = next((p for p in range(len(PLACES)) if not findings(p, kinds).refusals), None)
    if place is None or not unequal(played(place, kinds).saved, played(place, kinds[::-1]).saved):
        return None
    return f"the order of {kinds} in the recipe changes the run, although their ranks differ"


@SAMPLE_OR_ALL
def test_two_tricks_at_one_hook_both_act_or_one_is_reported(whole: bool) -> None:
    every = pairs()
    faults = []
    for _, a, b in every if whole else sample(every, 1):
        faults += [complaint((a, b)), *([complaint((b, a)), order_matters((a, b))] if a != b else [])]
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize(
    "kinds",
    [
        ("past_selves", "weight_clipping"),
        ("instance_noise", "input_dropout"),
        ("averaged_weights", "orthogonal_map"),
        ("diff_augment", "input_dropout"),
    ],
)
def test_the_order_in_the_recipe_does_not_matter(kinds: tuple[str, str]) -> None:
    place = next(p for p in range(len(PLACES)) if not findings(p, kinds).refusals)
    assert idle(place, kinds) == []
    assert built(kinds[0]).rank != built(kinds[1]).rank
    assert order_matters(kinds) is None


def test_a_trick_that_another_one_replaces_is_found() -> None:
    """Here only the last of all input transforms acts."""

    def last_view(views: Sequence[InputTransform], images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return apply_input_transforms(views[-1:], images, origin, context)

    place, kinds = [world for world, _ in PLACES].index("pictures"), ("instance_noise", "diff_augment")
    assert idle(place, kinds) == []
    played.cache_clear()
    try:
        with patch.object(hooks, "apply_input_transforms", last_view):
            assert len(idle(place, kinds)) == 1
            assert "nobody says so" in (complaint(kinds) or "")
    finally:
        played.cache_clear()


SMALL, LARGE = {"kind": "gradient_clipping", "max_norm": 0.01}, {"kind": "gradient_clipping", "max_norm": 0.05}
TIGHT, WIDE = {"kind": "weight_clipping", "limit": 0.01}, {"kind": "weight_clipping", "limit": 0.05}
SURE, UNSURE = ({"kind": "soft_labels", "real": [t, t], "fake": [0.0, 0.0]} for t in (0.9, 0.7))
OFTEN, SELDOM = ({"kind": "past_selves", "keep": 1, "every": every, "duration": 1} for every in (3, 6))


@pytest.mark.parametrize(
    ("pair", "alone", "says"),
    [
        ((SMALL, LARGE), SMALL, "only the smallest 'max_norm'"),
        ((LARGE, SMALL), SMALL, "only the smallest 'max_norm'"),
        ((TIGHT, WIDE), TIGHT, "only the smallest 'limit'"),
        ((WIDE, TIGHT), TIGHT, "only the smallest 'limit'"),
        ((SURE, UNSURE), UNSURE, "only the last one decides"),
        ((UNSURE, SURE), SURE, "only the last one decides"),
    ],
)
def test_the_warning_about_two_of_a_kind_is_true(
    pair: tuple[dict[str, Any], ...], alone: dict[str, Any], says: str
) -> None:
    """In both orders, two settings do what one of them does alone, while the other one alone does something else."""
    both = recipe("points", *pair)
    (warning,) = [finding for finding in findings_of(both, "points").warnings if finding.field == "tricks.1"]
    assert says in warning.message
    (other,) = [trick for trick in pair if trick is not alone]
    sgd = {"optimizer": {side.value: {"kind": "sgd", "lr": 1.0} for side in Side}}  # Adam undoes a constant factor
    runs = [
        Session(recipe("points", *tricks, **sgd), source("points")).play(3) for tricks in (pair, (alone,), (other,))
    ]
    together, one, left_out = (run.moves[-1].fake for run in runs)
    assert torch.allclose(together, one, rtol=1e-5, atol=1e-6)
    assert (together - left_out).abs().max() > 1e-4


@pytest.mark.parametrize("pair", [(OFTEN, SELDOM), (SELDOM, OFTEN)])
def test_the_last_of_two_past_selves_plays_if_both_would(pair: tuple[dict[str, Any], ...]) -> None:
    both = recipe("points", *pair)
    assert any("only the last one does" in finding.message for finding in findings_of(both, "points").warnings)
    run = Session(both, source("points")).play(6)
    played_by: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: played_by.append(name)

    for name, trick in run.game.tricks.items():
        for copy in trick.selves[Side.G.value]:  # type: ignore[union-attr,index]
            copy.register_forward_hook(note(name))
    run.play(1)  # step 6, in which both would
    assert played_by == ["past_selves_2"]


def test_every_trick_is_in_some_pair_of_the_sample() -> None:
    assert {kind for _, *both in sample(pairs(), 1) for kind in both} == set(TRICKS)
