"""The nine seams, each with a small inhabitant: folded at its place, in the recipe's order, for its sides."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import (
    BATCH,
    Counted,
    Linear,
    Session,
    Shift,
    by_hand,
    context,
    recipe,
    ring_batches,
    session,
    source,
    unequal,
)
from poise.core.hooks import (
    FakeReplacement,
    GradientTransform,
    InputTransform,
    LayerContext,
    LossTerm,
    NetworkTransform,
    OpponentSwap,
    PostUpdate,
    ReplacedFakes,
    TargetTransform,
    Tempo,
    Trick,
    apply_input_transforms,
    apply_network_transforms,
    apply_target_transforms,
)
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.random_streams import RandomStreams
from poise.core.schedules import Linear as Ramp
from poise.core.types import Batch, DiscriminatorOutput, MoveContext, MoveCounts, Origin, Side, Targets
from poise.engine.step import alternate, discriminate, make_move, replace_fakes, sample
from poise.engine.step_metrics import StepMetrics
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.instance_noise import InstanceNoise
from poise.tricks.layers import StochasticLayer

D, G = Side.D, Side.G


def only(trick: Trick, *sides: Side) -> Trick:
    """The trick, for these sides alone."""
    trick.sides = frozenset(sides)  # type: ignore[misc]
    return trick


# ---------------------------------------------------------------- the inhabitants


class Louder(nn.Module):
    """A network whose D says everything `by` times as loud."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, nn.Parameter(torch.tensor(by))

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=self.by * self.net(images).score)


class Amplify(NetworkTransform):
    """Makes D louder."""

    sides: ClassVar[frozenset[Side]] = frozenset({D})

    def __init__(self, name: str, by: float = 2.0) -> None:
        super().__init__(name)
        self.by = by

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        return Louder(net, self.by)


class Alternating(Tempo):
    """Three moves of D in even steps, two of G in odd ones."""

    max_moves = MoveCounts(3, 2)

    def should_move(self, context: MoveContext, before: MoveData | None) -> bool:
        d, g = (3, 0) if context.step % 2 == 0 else (1, 2)
        return context.turn < (d if context.side is D else g)


class Curious(Tempo):
    """G first, two moves each; remembers what it was asked about, and which move before that it was shown."""

    max_moves, order = MoveCounts(2, 2), (G, D)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Side, int, tuple[Side, int] | None]] = []

    def should_move(self, context: MoveContext, before: MoveData | None) -> bool:
        shown = None if before is None else (before.context.side, before.context.turn)
        self.asked.append((context.side, context.turn, shown))
        assert before is None or "adversarial" in before.logged
        return context.turn < 2


class Stranger(OpponentSwap):
    """Somebody else plays."""

    def __init__(self, name: str, other: nn.Module) -> None:
        super().__init__(name)
        self.other = other
        self.asked: list[tuple[Side, Side]] = []

    def select_network(self, side: Side, net: nn.Module, context: MoveContext) -> nn.Module:
        self.asked.append((context.side, side))
        return self.other


class Constant(FakeReplacement):
    """D is handed the same picture in place of the last `count` fakes, or of all."""

    def __init__(self, name: str, value: float, count: int = BATCH) -> None:
        super().__init__(name)
        self.value, self.count = value, count

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        old = Batch(torch.full_like(fake.images[-self.count :], self.value), None)
        return ReplacedFakes(Batch(fake.images[: -self.count], None), old)


class Times(InputTransform):
    """x -> times x + plus."""

    def __init__(self, name: str, times: float, plus: float = 0.0) -> None:
        super().__init__(name)
        self.times, self.plus = times, plus
        self.origins: list[tuple[Side, Origin]] = []

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        self.origins.append((context.side, origin))
        return self.times * images + self.plus


class Flip(TargetTransform):
    """Real is called fake and fake real."""

    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        return Targets(1 - targets.real, 1 - targets.fake)


class Shrink(TargetTransform):
    """Targets times a number."""

    def __init__(self, name: str, times: float) -> None:
        super().__init__(name)
        self.times = times

    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        return Targets(targets.real * self.times, targets.fake * self.times)


class MeanScore(LossTerm):
    """The mean score of the fakes."""

    needs_output = frozenset({"fake"})

    def loss(self, move: MoveData) -> Tensor:
        return move.score("fake").mean()


class Clip(GradientTransform):
    """Every gradient within [-most, most]."""

    def __init__(self, name: str, most: float) -> None:
        super().__init__(name)
        self.most = most

    def transform_gradients(self, player: Player, move: MoveData) -> None:
        for weight in player.weights:
            if weight.grad is not None:
                weight.grad.clamp_(-self.most, self.most)


class Scale(Clip):
    """Every gradient times a number."""

    def transform_gradients(self, player: Player, move: MoveData) -> None:
        for weight in player.weights:
            if weight.grad is not None:
                weight.grad.mul_(self.most)


class Count(PostUpdate):
    """How many moves there were, and what the player's first weight was after each."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.seen: list[tuple[Side, Tensor]] = []

    def after_update(self, player: Player, move: MoveData) -> None:
        assert player.side is move.context.side
        self.count += 1
        self.seen.append((player.side, player.weights[0].detach().clone()))


class Hide(PostUpdate):
    """Shows some other G."""

    def __init__(self, name: str, net: nn.Module | None) -> None:
        super().__init__(name)
        self.net = net

    def after_update(self, player: Player, move: MoveData) -> None:
        pass

    def sampling_network(self, side: Side) -> nn.Module | None:
        return self.net


# ---------------------------------------------------------------- each at its place


def judged(*tricks: Trick, side: Side = D, at: int = 0, **parts: nn.Module) -> MoveData:
    """One move up to D's verdict."""
    game = by_hand(*tricks, **parts)  # type: ignore[arg-type]
    move = sample(game, ring_batches(), context(at, side=side))
    replace_fakes(game, move)
    discriminate(game, move)
    return move


def played(
    *tricks: Trick, side: Side = D, at: int = 0, lr: float = 0.1
) -> tuple[dict[str, float], list[Tensor], list[Tensor]]:
    """One move: the readings, the gradients and the weights after it."""
    game, metrics = by_hand(*tricks, lr=lr), StepMetrics()
    make_move(game, ring_batches(), context(at, side=side), metrics)
    weights = game.players[side].weights
    logged = {name: stat.mean for name, stat in metrics.reduce().items()}
    return logged, [w.grad.clone() for w in weights], [w.detach().clone() for w in weights]


class TestTempo:
    def test_sets_the_moves_of_each_step(self) -> None:
        count = Count("count")
        game = by_hand(count, tempo=Alternating())
        for at in range(3):
            alternate(game, ring_batches(3), context(at), StepMetrics())
        assert [side for side, _ in count.seen] == [D, D, D, *(D, G, G), D, D, D]

    def test_is_asked_after_each_move_and_shown_it(self) -> None:
        tempo = Curious()
        for at in range(2):
            alternate(by_hand(tempo=tempo), ring_batches(2), context(at), StepMetrics())
        step = [(side, turn, (side, turn - 1) if turn else None) for side in (G, D) for turn in range(3)]
        assert tempo.asked == step * 2

    def test_the_feed_follows_the_most_moves_there_can_be(self) -> None:
        """Steps of one D move use up as much of the data's order as steps of three: the order knows no tempo."""
        batches = Counted(Alternating.max_moves.d)
        for at in range(2):
            alternate(by_hand(tempo=Alternating()), batches, context(at), StepMetrics())
        for index, given in zip((0, 1, 2, 3), batches.given, strict=True):
            assert torch.equal(given, batches.source.batch(index, BATCH, context().streams).images)


class TestOpponent:
    def test_somebody_else_makes_the_fakes_in_ds_move(self) -> None:
        other = Shift([100.0, -100.0])
        move = judged(Stranger("stranger", other))
        assert torch.equal(move.fake, move.latents + torch.tensor([100.0, -100.0]))
        assert torch.equal(move.score("fake").detach(), Linear([0.5, -0.25])(move.fake).score.detach())

    def test_somebody_else_judges_in_gs_move(self) -> None:
        """G's own fakes, the stranger's verdict, and the gradient that follows from it."""
        stranger = Stranger("stranger", Linear([-3.0, 0.0]))
        move = judged(stranger, side=G)
        assert torch.allclose(move.score("fake"), -3.0 * move.fake[:, 0])
        _, (grad,), _ = played(stranger, side=G)
        expected = 3.0 * torch.sigmoid(3.0 * move.fake[:, 0].detach()).mean()
        assert torch.allclose(grad, torch.stack((expected, torch.zeros(()))), atol=1e-6)

    def test_is_asked_about_the_rival_in_the_moves_of_its_sides(self) -> None:
        for sides, expected in (((D, G), [(D, G), (G, D)]), ((D,), [(D, G)]), ((G,), [(G, D)])):
            for_d, for_g = Shift([0.0, 0.0]), Linear([1.0, 1.0])
            stranger = only(Stranger("stranger", for_d), *sides)
            game = by_hand(stranger)
            for side in Side:
                stranger.other = for_d if side is D else for_g
                make_move(game, ring_batches(), context(side=side), StepMetrics())
            assert stranger.asked == expected

    def test_the_last_one_asked_plays(self) -> None:
        first, second = Stranger("a", Shift([1.0, 1.0])), Stranger("b", Shift([5.0, 5.0]))
        move = judged(first, second)
        assert torch.equal(move.fake, move.latents + 5)

    def test_the_stand_in_is_not_trained(self) -> None:
        other = Shift([7.0, 7.0])
        game = by_hand(Stranger("stranger", other))
        before = [w.clone() for w in game.g.weights]
        make_move(game, ring_batches(), context(), StepMetrics())
        assert other.by.tolist() == [7.0, 7.0]
        assert all(torch.equal(a, b) for a, b in zip(before, game.g.weights, strict=True))


class TestOffer:
    def test_d_is_handed_something_in_place_of_the_fakes(self) -> None:
        plain, offered = played(), played(Constant("constant", 4.0))
        score = Linear([0.5, -0.25])(torch.full((1, 2), 4.0)).score
        assert offered[0]["d/fake_score"] == pytest.approx(float(score.detach()))
        assert offered[0]["d/real_score"] == plain[0]["d/real_score"]

    def test_g_pays_for_its_own_fakes(self) -> None:
        plain, offered = played(side=G), played(Constant("constant", 4.0), side=G)
        assert torch.equal(plain[1][0], offered[1][0])
        assert plain[0] == offered[0]

    def test_each_is_handed_what_is_still_new_and_fakes_keep_their_places(self) -> None:
        three, five = Constant("three", 3.0, 2), Constant("five", 5.0, 4)
        for tricks, result in (((three, five), [5.0] * 4 + [3.0] * 2), ((five, three), [3.0] * 2 + [5.0] * 4)):
            move = judged(*tricks)
            assert move.fake[:2].detach().eq(judged().fake[:2].detach()).all()
            assert move.fake[2:, 0].tolist() == result

    def test_where_nothing_is_new_nobody_is_asked(self) -> None:
        assert torch.equal(judged(Constant("c", 3.0), Constant("d", 6.0)).fake, torch.full((BATCH, 2), 3.0))

    def test_stands_before_the_views(self) -> None:
        move = judged(Times("view", 10.0), Constant("c", 3.0))
        assert torch.equal(move.fake, torch.full((BATCH, 2), 3.0)), "the raw pile is the offered one"
        assert torch.allclose(move.score("fake"), torch.full((BATCH,), 30 * 0.25))


class TestView:
    def test_both_piles_in_both_players_moves(self) -> None:
        view, pull = Times("view", 3.0), only(MeanScore("reads", 1e-9), G)
        pull.needs_output = frozenset({"real"})  # type: ignore[misc]
        alternate(by_hand(view, pull), ring_batches(), context(), StepMetrics())
        assert sorted(view.origins) == sorted((side, origin) for side in Side for origin in ("real", "fake"))

    def test_d_judges_what_the_view_shows_and_the_raw_pile_stays(self) -> None:
        plain, viewed = judged(), judged(Times("view", 3.0))
        for origin in ("real", "fake"):
            assert torch.equal(viewed.samples(origin), plain.samples(origin))
            assert torch.allclose(viewed.score(origin), 3 * plain.score(origin), atol=1e-6)

    def test_gs_gradient_passes_through(self) -> None:
        """D sees 3x: G's gradient is that of a D with three times the weights."""
        _, (grad,), _ = played(Times("view", 3.0), side=G)
        fake = judged(side=G).fake.detach()
        weight = torch.tensor([1.5, -0.75])
        expected = -(torch.sigmoid(-(fake @ weight))[:, None] * weight).mean(0)
        assert torch.allclose(grad, expected, atol=1e-6)

    def test_acts_in_order(self) -> None:
        doubled, moved = Times("twice", 2.0), Times("moved", 1.0, 1.0)
        x = torch.ones(1, 2)
        assert apply_input_transforms([doubled, moved], x, "real", context()).tolist() == [[3.0, 3.0]]
        assert apply_input_transforms([moved, doubled], x, "real", context()).tolist() == [[4.0, 4.0]]
        one, other = judged(doubled, moved), judged(moved, doubled)
        assert torch.allclose(other.score("fake") - one.score("fake"), torch.full((BATCH,), 0.25))

    def test_keeps_to_its_side(self) -> None:
        for side in Side:
            view = only(Times("view", 3.0), side)
            alternate(by_hand(view), ring_batches(), context(), StepMetrics())
            assert {s for s, _ in view.origins} == {side}


class TestAim:
    def test_d_is_asked_for_something_else(self) -> None:
        """All flipped: D's gradient is that of the piles exchanged, softplus for softplus."""
        logged, _, _ = played(Flip("flip"))
        move = judged()
        expected = (softplus(move.score("real")).mean() + softplus(-move.score("fake")).mean()) / 2
        assert logged["d/adversarial"] == pytest.approx(float(expected.detach()), rel=1e-6)

    def test_g_is_asked_for_what_it_always_was(self) -> None:
        assert played(Flip("flip"), side=G)[0] == played(side=G)[0]

    def test_acts_in_order(self) -> None:
        flip, shrink = Flip("flip"), Shrink("shrink", 0.5)
        hard = Targets(torch.ones(1), torch.zeros(1))
        asked = [apply_target_transforms(aims, hard, context()) for aims in ([flip, shrink], [shrink, flip])]
        assert [(float(t.real), float(t.fake)) for t in asked] == [(0.0, 0.5), (0.5, 1.0)]
        assert played(flip, shrink)[0] != played(shrink, flip)[0]

    def test_twice_flipped_is_not_flipped(self) -> None:
        assert played(Flip("a"), Flip("b"))[0] == played()[0]


class TestTerm:
    @pytest.mark.parametrize("side", list(Side))
    def test_joins_the_cost_with_its_weight(self, side: Side) -> None:
        """The mean score's gradient is known: the mean fake for D's weight, w for G's shift."""
        plain, charged = played(side=side), played(MeanScore("mean", 3.0), side=side)
        fake = judged(side=side).fake.detach()
        expected = 3 * fake.mean(0) if side is D else 3 * torch.tensor([0.5, -0.25])
        assert torch.allclose(charged[1][0] - plain[1][0], expected, atol=1e-5)
        assert charged[0][f"{side}/adversarial"] == plain[0][f"{side}/adversarial"]
        assert charged[0][f"{side}/mean"] == pytest.approx(
            float(judged(side=side).score("fake").mean().detach()), rel=1e-5
        )

    def test_keeps_to_its_side(self) -> None:
        for side in Side:
            metrics = StepMetrics()
            alternate(by_hand(only(MeanScore("mean", 3.0), side)), ring_batches(), context(), metrics)
            assert [name for name in metrics.reduce() if name.endswith("/mean")] == [f"{side}/mean"]

    def test_two_of_them_add_up(self) -> None:
        plain, one, two = (
            played(*terms)[1][1] for terms in ((), (MeanScore("a", 1.0),), (MeanScore("a", 1.0), MeanScore("b", 2.0)))
        )
        assert float(one - plain) == pytest.approx(1.0, abs=1e-6)
        assert float(two - plain) == pytest.approx(3.0, abs=1e-6)

    def test_its_weight_is_a_dial(self) -> None:
        term = MeanScore("mean", Ramp(start=1.0, end=0.0), every=2)
        assert [term.is_due(context(at, steps=4)) for at in range(5)] == [True, False, True, False, False]
        assert [term.scale(context(at, steps=4)) for at in (0, 2)] == [2.0, 1.0]


class TestGrads:
    def test_acts_between_backward_and_step(self) -> None:
        before = by_hand().d.weights
        _, grads, after = played(Clip("clip", 1e-3), lr=1.0)
        for grad, old, new in zip(grads, before, after, strict=True):
            assert grad.abs().max() <= 1e-3
            assert torch.allclose(new, old.detach() - grad), "the step goes by what was left"
        assert any(grad.abs().max() == 1e-3 for grad in grads)

    def test_acts_in_order(self) -> None:
        (small, _), (large, _) = (
            played(*order)[1] for order in ((Scale("s", 100.0), Clip("c", 0.01)), (Clip("c", 0.01), Scale("s", 100.0)))
        )
        assert small.abs().max() == pytest.approx(0.01)
        assert large.abs().max() == pytest.approx(1.0)

    def test_the_row_shows_what_the_backward_gave(self) -> None:
        """Clipping must not hide what it is there for."""
        logged, grads, _ = played(Scale("scale", 10.0))
        assert 10 * logged["d/grad_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in grads]).norm()))
        assert logged["d/grad_norm"] == played()[0]["d/grad_norm"]

    def test_keeps_to_its_side(self) -> None:
        clip = only(Clip("clip", 0.0), G)
        assert played(clip)[1][0].abs().max() > 0
        assert played(clip, side=G)[1][0].abs().max() == 0


class TestAfter:
    def test_sees_the_weights_after_the_step_once_per_move(self) -> None:
        count = Count("count")
        game = by_hand(count)
        alternate(game, ring_batches(), context(), StepMetrics())
        assert int(count.count) == 2
        for side, weight in count.seen:
            assert torch.equal(weight, game.players[side].weights[0])
        assert not torch.equal(count.seen[0][1], by_hand().d.weights[0])

    def test_keeps_to_its_side(self) -> None:
        for side in Side:
            count = only(Count("count"), side)
            alternate(by_hand(count), ring_batches(), context(), StepMetrics())
            assert [s for s, _ in count.seen] == [side]

    def test_what_it_keeps_is_saved_with_the_game(self) -> None:
        game = by_hand(Count("count"))
        alternate(game, ring_batches(), context(), StepMetrics())
        assert int(game.state_dict()["tricks.count.count"]) == 2

    def test_the_first_that_shows_a_network_is_shown(self) -> None:
        a, b = Shift([1.0, 1.0]), Shift([2.0, 2.0])
        game = by_hand(Hide("nobody", None), Hide("a", a), Hide("b", b))
        assert game.sampling_network() is a
        assert game.sampling_network(raw=True) is game.g.net
        assert by_hand(Hide("nobody", None)).sampling_network() is not None


class TestSurgery:
    def test_acts_in_order_on_its_sides(self) -> None:
        net = Linear([1.0, 0.0])
        tricks = [Amplify("a", 2.0), Amplify("b", 5.0)]
        operated = apply_network_transforms(tricks, D, net, RandomStreams(0))
        assert isinstance(operated, Louder)
        assert (float(operated.by.detach()), float(operated.net.by.detach())) == (5.0, 2.0)
        assert apply_network_transforms(tricks, G, net, RandomStreams(0)) is net


# ---------------------------------------------------------------- through a recipe


class AmplifyEntry(TrickConfig):
    kind: Literal["amplify"] = "amplify"
    tip, source = "T99", "nobody"
    by: float = 2.0

    def build(self, name: str, context: TrickContext) -> Amplify:
        return Amplify(name, self.by)


class LensEntry(AmplifyEntry):
    """Acts at two seams."""

    kind: Literal["lens"] = "lens"  # type: ignore[assignment]

    def build(self, name: str, context: TrickContext) -> Lens:  # type: ignore[override]
        return Lens(name, self.by)


class Lens(Amplify, InputTransform):
    """Makes D louder, and adds `by` to what it sees."""

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return images + self.by


class TimesEntry(AmplifyEntry):
    kind: Literal["times"] = "times"  # type: ignore[assignment]

    def build(self, name: str, context: TrickContext) -> Times:  # type: ignore[override]
        return Times(name, self.by)


class KeepEntry(AmplifyEntry):
    """Keeps a copy of D as it was handed over."""

    kind: Literal["keep"] = "keep"  # type: ignore[assignment]

    def build(self, name: str, context: TrickContext) -> Hide:  # type: ignore[override]
        return Hide(name, copy.deepcopy(context.networks[D]))


def built(*entries: TrickConfig) -> Session:
    config = recipe("points").model_copy(update={"tricks": entries})
    return Session(config, source("points"))


def test_surgery_is_done_before_anybody_holds_the_network() -> None:
    """The optimiser trains the wrapped network's weights too, wherever in the list the surgery stands."""
    run = built(KeepEntry(), AmplifyEntry(by=3.0))
    game = run.game
    assert isinstance(game.d.net, Louder)
    assert not isinstance(game.g.net, Louder)
    optimised = {id(w) for group in game.d.optimizer.param_groups for w in group["params"]}
    assert id(game.d.net.by) in optimised
    assert id(game.d.net.by) in {id(w) for w in game.d.weights}
    assert isinstance(game.tricks["keep"].net, Louder), "a trick that copies a network copies the changed one"
    run.play(1)
    assert float(game.d.net.by.detach()) != 3.0
    assert "game/d.net.by" in run.saved()


def test_surgery_leaves_the_first_weights_as_they_were() -> None:
    plain, operated = built().game, built(AmplifyEntry()).game
    for ours, theirs in zip(plain.d.net.parameters(), operated.d.net.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_tricks_of_a_recipe_act_in_its_order() -> None:
    x = torch.ones(1, 2)
    for entries, expected in (
        ((TimesEntry(by=3.0), TimesEntry(by=-1.0)), ["times", "times_2"]),
        ((AmplifyEntry(), TimesEntry()), ["amplify", "times"]),
    ):
        game = built(*entries).game
        assert list(game.tricks) == expected
        assert [v.name for v in game.active_tricks(D).input_transforms] == [
            n for n in expected if n.startswith("times")
        ]
    views = built(LensEntry(by=1.0), TimesEntry(by=3.0)).game.active_tricks(D).input_transforms
    assert apply_input_transforms(views, x, "real", context()).tolist() == [[6.0, 6.0]]


def test_a_trick_with_surgery_keeps_its_place_at_its_other_seam() -> None:
    views = built(TimesEntry(by=3.0), LensEntry(by=1.0)).game.active_tricks(D).input_transforms
    assert [view.name for view in views] == ["times", "lens"]
    assert apply_input_transforms(views, torch.ones(1, 2), "real", context()).tolist() == [[4.0, 4.0]]


def test_one_trick_acts_at_each_of_its_seams() -> None:
    """Two views would be lost if a trick were sorted to its first seam only."""

    class Both(InputTransform, PostUpdate):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.calls: list[str] = []

        def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
            self.calls.append("view")
            return images

        def after_update(self, player: Player, move: MoveData) -> None:
            self.calls.append("remember")

    both = Both("both")
    make_move(by_hand(both), ring_batches(), context(), StepMetrics())
    assert both.calls == ["view", "view", "remember"]


def test_a_game_without_tricks_folds_nothing() -> None:
    game = by_hand()
    for side in Side:
        acting = game.active_tricks(side)
        assert not any(
            (
                acting.opponent_swaps,
                acting.fake_replacements,
                acting.input_transforms,
                acting.target_transforms,
                acting.loss_terms,
                acting.gradient_transforms,
                acting.post_updates,
            )
        )
    move = judged()
    seen: list[Tensor] = []
    game.d.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    discriminate(game, move)
    assert seen[0] is move.real
    assert seen[1] is move.fake


class TestRank:
    """Where the order of two tricks changes what they do, it is fixed; the recipe's order decides among equals."""

    PAIRS = (
        ("instance_noise", "diff_augment"),
        ("instance_noise", "adaptive_augment"),
        ("diff_augment", "adaptive_augment"),
        ("gradient_clipping", "historical_averaging"),
        ("noisy_labels", "soft_labels"),
        ("image_pool", "history"),
        ("image_pool", "experience_replay"),
    )
    STRONG: ClassVar = {
        "adaptive_augment": {"start": 0.7},
        "instance_noise": {"sigma": 0.5},
        "gradient_clipping": {"max_norm": 0.01},
        "historical_averaging": {"weight": 10.0},
        "noisy_labels": {"probability": 0.5},
        "image_pool": {"size": 12},
        "history": {"size": 12},
        "experience_replay": {"size": 12},
    }

    @pytest.mark.parametrize(("one", "other"), PAIRS)
    def test_either_order_in_the_recipe_is_the_same_run_to_the_bit(self, one: str, other: str) -> None:
        result = [{"kind": kind, **self.STRONG.get(kind, {})} for kind in (one, other)]
        saved = [session("pictures", *tricks).play(5).saved() for tricks in (result, result[::-1])]
        assert unequal(*saved) == []

    def test_equals_act_in_the_recipes_order(self) -> None:
        game = by_hand(Times("a", 2.0), Times("b", 1.0, 1.0), InstanceNoise("noise", 0.0))
        assert [trick.name for trick in game.active_tricks(D).input_transforms] == ["a", "b", "noise"]


class TestStreams:
    """What is drawn twice in a move is drawn from two streams."""

    def test_a_layer_that_is_passed_twice_in_a_move_draws_anew(self) -> None:
        clock, now = LayerContext(), context()
        clock.current = now
        first, second, other = (clock.generator(name).initial_seed() for name in ("a", "a", "b"))
        assert first == now.generator("a").initial_seed(), "the first pass draws what it always drew"
        assert len({first, second, other}) == 3
        clock.current = now
        assert clock.generator("a").initial_seed() == first, "the next move counts anew"
        clock.current = None
        assert clock.generator("a") is None

    def test_two_terms_that_ask_d_see_two_draws_of_a_view(self) -> None:
        noise, images = InstanceNoise("noise", 1.0), torch.zeros(BATCH, 2)
        game = by_hand(noise)
        ask = game.discriminate_fn(game.d.net, context())
        scores = [ask(images, None).score for _ in range(2)]
        assert not torch.equal(*scores)
        assert torch.equal(game.discriminate_fn(game.d.net, context())(images, None).score, scores[0])

    def test_prior_and_rebuilt_samples_of_a_move_have_other_masks(self) -> None:
        config = recipe("coded", {"kind": "standing_dropout", "rate": 0.5}, {"kind": "feature_reconstruction"})
        run, seen = Session(config, source("coded")), list[Tensor]()
        for layer in run.game.g.net.modules():
            if isinstance(layer, StochasticLayer):
                layer.register_forward_hook(lambda _, given, out: seen.append((out == 0) & (given[0] != 0)))
                break
        run.play(1)
        by_g = seen[-2:]  # G's own move makes samples of latents, and of codes
        assert by_g[0].shape == by_g[1].shape
        assert not torch.equal(*by_g)
