"""Tensors of the same name and shape are copied, all others are left."""

from __future__ import annotations

import torch
from torch import nn

from poise.engine.initial_weights import copy_matching_, match_tensors


def network(width: int = 3, *, norm: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width) if norm else nn.Identity(), nn.Linear(width, 1))


def test_weights_and_buffers_of_the_same_name_and_shape_are_copied() -> None:
    source, net = network(), network()
    source(torch.randn(8, 2))
    left = net[0].weight.clone()
    tensors = {name: tensor for name, tensor in source.state_dict().items() if name != "0.weight"}
    tensors["2.weight"] = torch.ones(1, 4)
    tensors["3.weight"] = torch.ones(5)
    last = net[2].weight.clone()
    matches = match_tensors(net, tensors)
    assert matches.taken == ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", *matches.taken[-2:]]
    assert matches.taken[-2:] == ["1.num_batches_tracked", "2.bias"]
    assert (matches.missing, matches.other_shape) == (["0.weight"], ["2.weight"])
    copy_matching_(net, tensors)
    for name in matches.taken:
        assert torch.equal(net.state_dict()[name], source.state_dict()[name])
    assert int(net[1].num_batches_tracked) == 1
    assert torch.equal(net[0].weight, left)
    assert torch.equal(net[2].weight, last)
    assert all(weight.requires_grad for weight in net.parameters())


def test_nothing_is_copied_from_nothing() -> None:
    net = network(norm=False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    copy_matching_(net, {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert match_tensors(net, {}).missing == list(before)
