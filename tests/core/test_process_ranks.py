"""How ranks find each other, and where their tensors are while they are sent; CUDA and NCCL are imitated here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from poise.core import rank_store
from poise.core.process_ranks import ProcessRanks, connected_ranks, lost_ranks
from poise.core.rank_store import START, store_of_start
from poise.errors import RankLost, RecipeError

SECOND_CARD = torch.device("cuda", 1)


def gather(store: dist.Store, order: list[int], size: int) -> list[dist.Store]:
    """Let the ranks come in this order; the stores that they get."""
    found: dict[int, dist.Store] = {}

    def come(rank: int) -> None:
        found[rank] = store_of_start(store, rank, size, 5.0)

    threads = [threading.Thread(target=come, args=[rank]) for rank in order]
    for thread in threads:
        thread.start()
        thread.join(0.03)
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(size)]


def leave_complete(store: dist.Store) -> None:
    """What a start leaves behind whose ranks have all been connected."""
    for rank, own in enumerate(gather(store, [0, 1, 2], 3)):
        own.set(f"address/{rank}", "dead")


def leave_half(store: dist.Store) -> None:
    """What a start leaves behind in which rank 0 has died while it waited."""
    with pytest.raises(RankLost):
        store_of_start(store, 0, 3, 0.0)
    assert store.get(START)


@pytest.mark.parametrize("leave", [None, leave_complete, leave_half])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]], ids=["first", "last"])
def test_ranks_meet_and_see_nothing_of_an_earlier_start(
    leave: Callable[[dist.Store], None] | None, order: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_store, "POLL", 0.002)
    store = dist.HashStore()
    if leave is not None:
        leave(store)
    stores = gather(store, order, 3)
    assert not any(own.check([f"address/{rank}"]) for own in stores for rank in range(3))
    stores[0].set("address/0", "alive")
    assert all(own.get("address/0") == b"alive" for own in stores)


@pytest.mark.parametrize(("rank", "missing"), [(0, "rank 1, 2 "), (1, "rank 0 ")])
def test_a_rank_that_does_not_come_is_named(rank: int, missing: str) -> None:
    with pytest.raises(RankLost, match=f"not all ranks have started, found no answer from {missing}in 0 seconds"):
        store_of_start(dist.HashStore(), rank, 3, 0.0)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Read error [127.0.0.1]:16278: Connection reset by "
            "peer. This is typically caused by a remote worker hanging. Check the logs. GLHF! \U0001f3d6",
            "Read error [127.0.0.1]:16278: Connection reset by peer",
        ),
        ("[/a/b.cc:81] Timed out waiting 5000ms for recv operation to complete", "Timed out waiting 5000ms for recv "),
        ("Connection closed by peer.\nmore\n", "Connection closed by peer"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_of_a_lost_rank_is_one_sentence(message: str, found: str) -> None:
    with pytest.raises(RankLost) as caught, lost_ranks():
        raise RuntimeError(message)
    assert caught.value.found.startswith(found.strip())
    assert not caught.value.found.endswith(".")
    assert "GLHF" not in str(caught.value)
    assert str(caught.value).endswith("; start all ranks again")


class TwoCards:
    """The devices of a machine with two CUDA devices, and a process group that sends CUDA tensors alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", self.set_device)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.current)
        functions = {
            "is_initialized": lambda: True,
            "get_backend": lambda: "nccl",
            "get_rank": lambda: 1,
            "get_world_size": lambda: 2,
            "broadcast": lambda tensor, source: self.send(tensor).fill_(7),
            "all_reduce": lambda tensor, *how: self.send(tensor).mul_(2),
            "all_gather": lambda parts, own: [part.copy_(self.send(own)) for part in parts],
        }
        for name, function in functions.items():
            monkeypatch.setattr(dist, name, function)
        monkeypatch.setattr(Tensor, "to", lambda tensor, device: Placed.of(tensor, device))

    def set_device(self, device: Any) -> None:
        self.current = torch.device(device).index

    def send(self, tensor: Tensor) -> Tensor:
        assert getattr(tensor, "placed", None) == SECOND_CARD, "No backend type associated with device type cpu"
        return tensor


class Placed:
    """Tensors that are said to be on a device."""

    @staticmethod
    def of(tensor: Tensor, device: torch.device | None) -> Tensor:
        moved = tensor.clone()
        moved.placed = device  # type: ignore[attr-defined]
        return moved


def test_a_rank_communicates_on_the_device_with_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = TwoCards(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with connected_ranks("auto") as (ranks, device):
        assert device == "cuda:1"
        assert cards.current == 1
        mixed = [torch.ones(2), torch.ones(()), torch.ones(3, dtype=torch.int64)]
        ranks.copy_from_leader(mixed)
        assert [tensor.tolist() for tensor in mixed] == [[7.0, 7.0], 7.0, [7, 7, 7]]
        assert ranks.mean(torch.ones(2)).tolist() == [1.0, 1.0]


def test_parts_are_gathered_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = TwoCards(monkeypatch)
    cards.current = 1
    monkeypatch.setattr(torch, "empty_like", lambda own: torch.zeros(own.shape))
    assert ProcessRanks().gather(torch.ones(2, 3)).tolist() == [[1.0] * 3] * 4


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_rank_without_a_device_of_its_own_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TwoCards(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(RecipeError, match=r"--device: this rank has no device .* 'cuda:2'; .* found 2, or write"),
        connected_ranks(device),
    ):
        pass
