"""Rows of the tricks that change a network when it is built: batch statistics for D, and noise for G."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.rows.base import Play, Row, weights
from contracts.tiny import BATCH, unequal
from poise.core.types import Side
from poise.networks.base import call_network
from poise.tricks.batch_stddev import WithGroupStddev

Statistic = Callable[[Tensor, nn.Module], Tensor]
"""A reference statistic of a batch's features, N x count, given the trick's wrapper of D."""


def kernel_statistic(features: Tensor, wrapper: nn.Module) -> Tensor:
    """o_ib = sum over j != i of exp(-||M_ib - M_jb||_1), M_i = f_i T, T being A x B x C; 3 kernels of 2 numbers."""
    (tensor,) = wrapper.statistic.parameters()
    rows = torch.einsum("na,abc->nbc", features, tensor.detach().double().view(features.shape[1], 3, 2))
    out = torch.zeros(len(rows), 3, dtype=torch.float64)
    for i in range(len(rows)):
        for j in range(len(rows)):
            for b in range(3):
                if i != j:
                    out[i, b] += math.exp(-sum(abs(float(rows[i, b, c] - rows[j, b, c])) for c in range(2)))
    return out


def check_batch_statistic(statistic: Statistic, is_ordered: Callable[[Tensor], bool], play: Play) -> None:
    """D's score gets <w, o> added, where o is a statistic of the batch alone; w starts at zero and is trained."""
    fresh, plain = play(True, 0).game.d.net, play(False, 0).game.d.net
    run = play(True, 6)
    assert all(len(batch) == BATCH for batch in run.seen), "each batch is compared separately"
    first, played_move = play(True, 1).of(Side.D)[0], run.of(Side.D)[-1]
    assert played_move.real is not None
    labels = played_move.move.labels
    for weight, expected in zip(fresh.net.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(weight, expected)
    assert not fresh.head.weight.any()
    scores = call_network(plain, first.real, first.move.labels).score
    assert torch.equal(first.move.score("real"), scores), "it starts as without the trick"

    d = run.game.d.net.eval()
    head = d.head.weight.detach().double()
    assert head.all(), "all of w is trained"

    def extra(origin: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the scores of a batch, and the reference statistic."""
        output, alone = call_network(d, origin, labels), call_network(d.net, origin, labels)
        assert torch.equal(output.features, alone.features)
        return (output.score - alone.score).detach().double(), statistic(alone.features.detach().double(), d)

    for origin in (played_move.real, played_move.fake, 3 * played_move.real):
        added, reference = extra(origin)
        assert torch.allclose(added, (reference * head).sum(1), rtol=1e-3, atol=1e-5)
        assert (reference > 0).all()
        assert added.any()
    copies, wide = played_move.real[:1].expand_as(played_move.real), 3 * played_move.real
    assert is_ordered(torch.stack([extra(origin)[1].mean(0) for origin in (copies, played_move.real, wide)]))
    of_copies = extra(copies)[0] / head.sum()
    assert torch.allclose(of_copies, extra(copies)[1][:, 0], atol=2e-3)


def ordered_by_similarity(statistics: Tensor) -> bool:
    """Copies have similarity 7 (seven others at distance 0), and a batch with more variation has less."""
    copies, real, wide = statistics
    return bool((abs(copies - 7) < 1e-4).all() and (real < 7).all() and (wide < real).all())


def check_minibatch_stddev(play: Play) -> None:
    """One layer of D gets another map: the standard deviation over a group of four; only D changes."""
    run, without = play(True, 0), play(False, 0)
    assert unequal(weights(run, Side.G), weights(without, Side.G)) == []
    (layer,) = [m.layer for m in run.game.d.net.modules() if isinstance(m, WithGroupStddev)]
    inputs: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().clone()))
    run.play(3)
    assert len(inputs) == len(run.seen)
    for maps in inputs:
        assert len(maps) == BATCH, "each batch is compared separately"
        stddev, others = maps[:, -1].double(), maps[:, :-1].double().numpy()
        for first in (0, 1):
            expected = np.sqrt(others[first::2].var(axis=0) + 1e-8).mean()
            assert torch.allclose(stddev[first::2], torch.tensor(expected), rtol=1e-4)
    inputs.clear()
    played_move, d = run.of(Side.D)[-1], run.game.d.net.eval()
    assert played_move.real is not None
    for origin in (played_move.real[:1].expand_as(played_move.real), played_move.real):
        call_network(d, origin, played_move.move.labels)
    copies, real = (float(maps[:, -1].mean()) for maps in inputs)
    assert copies < 2e-4 < real
    assert layer.weight[:, -1].abs().min() > 0, "its weights are trained"


def check_packing(play: Play) -> None:
    """D's network gets two concatenated samples, both real or both fake, and returns one score; G is unchanged."""
    run, without = play(True, 0), play(False, 0)
    assert unequal(weights(run, Side.G), weights(without, Side.G)) == []
    first = next(w for w in weights(run, Side.D).values() if w.dim() > 1)
    alone = next(w for w in weights(without, Side.D).values() if w.dim() > 1)
    assert first.shape[1] == 2 * alone.shape[1]
    assert first.shape[0] == alone.shape[0]
    assert first.shape[2:] == alone.shape[2:]

    inputs: list[Tensor] = []
    run.game.d.net.net.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().clone()))
    run.play(3)
    packs = [pack for origin in inputs for pack in origin]
    for played_move in run.moves:
        for origin in (played_move.real, played_move.fake):
            for one, other in zip(origin[::2], origin[1::2], strict=True) if origin is not None else ():
                assert torch.equal(packs.pop(0), torch.cat((one, other)))
        assert len(played_move.move.score("fake")) == BATCH // 2
    assert packs == []
    rows = run.metrics.state_dict()
    for index, played_move in enumerate(run.of(Side.D)):
        real, fake = (played_move.move.score(origin).detach() for origin in ("real", "fake"))
        assert real.shape == fake.shape == (BATCH // 2,)
        expected = (softplus(-real).mean() + softplus(fake).mean()) / 2
        assert float(rows["d/adversarial"][index]) == pytest.approx(float(expected), rel=1e-5)
    for played_move in run.of(Side.G):
        assert played_move.fake.shape == (BATCH, *run.source.shape)


class Maps(NamedTuple):
    """One pass through G: the output of each hidden activation, and the input of the layer after it."""

    given: list[Tensor]
    handed: list[Tensor]


def record_maps(net: nn.Module) -> Maps:
    """Record the maps of a generator from now on."""
    given, handed = list[Tensor](), list[Tensor]()
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.ConvTranspose2d)]
    assert len(layers) > 1
    for layer in layers[1:]:
        layer.register_forward_pre_hook(lambda _, args: handed.append(args[0].detach().clone()))
    for module in net.modules():
        if isinstance(module, nn.LeakyReLU):
            module.register_forward_hook(lambda *args: given.append(args[2].detach().clone()))
    return Maps(given, handed)


def sampled(net: nn.Module, like: Tensor, labels: Tensor | None, seed: int, times: int = 1) -> Tensor:
    """Samples of some latents, drawn with PyTorch's global generator, as `poise sample` does."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return call_network(net, like.repeat(times, 1), None if labels is None else labels.repeat(times))


Check = Callable[[Tensor, Tensor], Tensor]
"""check(given, handed): asserts the effect of a layer, and returns its random values."""


def check_inserted_layers(kind: str, settings: dict[str, float], check: Check, play: Play) -> None:
    """Layers act after G's hidden activations, in both players' moves and in sampling; samples of one z differ."""
    network = play(False, 0).recipe.canonical()["network"]
    if network["g"]["kind"] == "mlp":
        network["g"]["depth"] = 2  # two maps of one shape
    run = play(True, 0, network=network)
    maps = record_maps(run.game.g.net)
    run.play(3)
    layers = len(maps.given) // len(run.moves)
    assert layers >= 1
    assert len(maps.given) == len(maps.handed) == layers * len(run.moves)
    draws = [check(given, handed) for given, handed in zip(*maps, strict=True)]
    pairs = [(a, b) for k, a in enumerate(draws) for b in draws[:k] if a.shape == b.shape]
    assert not any(torch.allclose(a.double(), b.double(), atol=1e-4) for a, b in pairs), "each layer has its own draws"

    averaged = play(True, 2, tricks=[{"kind": kind, **settings}, {"kind": "averaged_weights", "half_life": 16.0}])
    played_move = run.moves[0]
    for net in (
        run.game.g.net.train(),
        run.game.g.net.eval(),
        averaged.game.sampling_network(),
        averaged.game.sampling_network().eval(),
    ):
        before = torch.get_rng_state()
        one, again, other = (sampled(net, played_move.latents, played_move.move.labels, seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one, again), "the seed determines the samples"
        assert (one != other).flatten(1).any(1).all()
        assert all(not torch.equal(one[k], one[j]) for k in range(BATCH) for j in range(k))
    plain = play(False, 2).game.sampling_network().eval()
    same = [sampled(plain, played_move.latents, played_move.move.labels, seed) for seed in (1, 2)]
    assert torch.equal(*same)

    maps = record_maps(run.game.g.net.eval())
    sampled(run.game.g.net, played_move.latents, played_move.move.labels, 3, times=200)
    assert len(maps.given) == layers
    for given, handed in zip(*maps, strict=True):
        check(given, handed)


def is_half_dropout(given: Tensor, handed: Tensor) -> Tensor:
    """Half of the values are 0, the others are doubled, so the mean is kept."""
    dropped = handed == 0
    assert abs(float(dropped.double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(dropped.numel())
    assert torch.allclose(handed, torch.where(dropped, 0.0, 2 * given))
    error = (given.double().square().mean() / given.numel()).sqrt()
    assert abs(float((handed - given).double().mean())) < 5 * float(error)
    return dropped


def is_noise(given: Tensor, handed: Tensor) -> Tensor:
    """0.3 eps is added: mean and standard deviation are within five standard errors."""
    noise = (handed - given).double()
    assert abs(float(noise.std()) - 0.3) < 5 * 0.3 / math.sqrt(2 * noise.numel())
    assert abs(float(noise.mean())) < 5 * 0.3 / math.sqrt(noise.numel())
    return noise


def check_frozen_layers(play: Play) -> None:
    """D's first layer keeps its initial weights; in D's first move all others get the update of a D without the trick.

    This holds in D's first move only, because G then learns from another D.
    """
    (start, one, three), plain = (play(True, steps) for steps in (0, 1, 3)), play(False, 1)
    initial, after, later, without = (weights(run, Side.D) for run in (start, one, three, plain))
    assert initial.keys() == without.keys(), "no weight gets another name, so that the networks of a run still match"
    frozen = {name for name, weight in initial.items() if not weight.requires_grad}
    (first,) = {name.rpartition(".")[0] for name in frozen}
    assert frozen == {name for name in initial if name.startswith(f"{first}.")}
    for name in initial:
        is_frozen = name in frozen
        assert torch.equal(initial[name], after[name]) == is_frozen
        assert torch.equal(initial[name], later[name]) == is_frozen
        assert is_frozen or torch.allclose(after[name], without[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(initial[name], without[name])
    assert all(weight.requires_grad for weight in weights(start, Side.G).values())


ROWS = {
    "frozen_layers": Row(strong={"d": 1}, zero={"d": 0}, check=check_frozen_layers),
    "layer_noise": Row(
        strong={"sigma": 0.3},
        zero={"sigma": 0.0},
        check=partial(check_inserted_layers, "layer_noise", {"sigma": 0.3}, is_noise),
    ),
    "minibatch_discrimination": Row(
        strong={"kernels": 3, "dims": 2},
        zero={"kernels": 0},
        check=partial(check_batch_statistic, kernel_statistic, ordered_by_similarity),
    ),
    "minibatch_stddev": Row(
        strong={"group": 4},
        zero={"group": 1},
        check=check_minibatch_stddev,
    ),
    "packing": Row(strong={"samples": 2}, zero={"samples": 1}, check=check_packing),
    "standing_dropout": Row(
        strong={"rate": 0.5, "layers": 3},
        zero={"rate": 0.0},
        check=partial(check_inserted_layers, "standing_dropout", {"rate": 0.5, "layers": 3}, is_half_dropout),
    ),
}
