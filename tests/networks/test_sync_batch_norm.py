"""Batch norm with the statistics of all ranks: against PyTorch's, its derivatives, and where it is used."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from contracts.tiny import Session, recipe, source
from poise.core.hooks import LayerContext
from poise.core.ranks import Ranks
from poise.networks.sync_batch_norm import SyncBatchNorm, synchronise_


class Twins(Ranks):
    """Two ranks that have the same samples, so that a mean over them is the value of each."""

    size = 2


def in_move(norm: nn.Module, ranks: Ranks) -> nn.Module:
    """A copy of a batch norm, synchronised, in a move on these ranks."""
    net, layer_context = nn.Sequential(copy.deepcopy(norm)), LayerContext()
    synchronise_(net, layer_context)
    game = Session(recipe("points"), source("points"))
    layer_context.current = replace(game.context(), ranks=ranks)
    assert isinstance(net[0], SyncBatchNorm)
    return net[0]


NORMS = [nn.BatchNorm1d(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None)]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_two_ranks_with_the_same_samples_are_one_with_all_of_them(norm: nn.Module, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(5, 3, *((4, 4) if isinstance(norm, nn.BatchNorm2d) else ()))).to(dtype)
    reference = copy.deepcopy(norm)
    for weight in reference.parameters():
        nn.init.normal_(weight)
    if dtype == torch.float64:
        reference.double()
    one = in_move(reference, Twins())
    expected, found = reference(torch.cat((x, x))), one(x)
    assert found.dtype == dtype
    assert torch.allclose(
        torch.cat((found, found)), expected, rtol=1e-10 if dtype == torch.float64 else 0.02, atol=0.02
    )
    for name, value in reference.state_dict().items():
        assert torch.allclose(one.state_dict()[name].double(), value.double(), rtol=1e-4, atol=1e-6), name


def test_it_is_twice_differentiable() -> None:
    norm = in_move(nn.BatchNorm1d(2, track_running_stats=False).double(), Twins())
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("outside", ["between moves", "evaluation", "alone"])
def test_elsewhere_it_is_the_batch_norm_of_pytorch(outside: str) -> None:
    reference = nn.BatchNorm2d(3).train(outside != "evaluation")
    norm = in_move(reference, Ranks() if outside == "alone" else Twins())
    assert isinstance(norm, SyncBatchNorm)
    if outside == "between moves":
        norm.layer_context.current = None
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(norm(x), reference(x))


def test_a_step_on_one_rank_is_the_same_to_the_bit() -> None:
    plain, synchronised = (
        Session(recipe("pictures", **changes), source("pictures")).play(2).saved()
        for changes in ({}, {"sync_batch_norm": True})
    )
    assert plain.keys() == synchronised.keys()
    assert all(torch.equal(tensor, synchronised[name]) for name, tensor in plain.items())


def test_averages_of_the_weights_share_the_move() -> None:
    game = Session(recipe("pictures", {"kind": "averaged_weights"}, sync_batch_norm=True), source("pictures")).game
    norms = [module for module in game.modules() if isinstance(module, SyncBatchNorm)]
    assert len({id(norm.layer_context) for norm in norms}) == 1
    assert any(norm in list(game.tricks.modules()) for norm in norms)


def test_the_field_leaves_hashes_of_recipes_without_it() -> None:
    plain = recipe("pictures")
    assert "sync_batch_norm" not in plain.to_toml()
    assert recipe("pictures", sync_batch_norm=True).hash != plain.hash
