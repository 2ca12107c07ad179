"""Device and precision: automatic choice, what is recorded, and errors that list the available devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from poise.core.types import to_float64
from poise.engine import compute
from poise.engine.compute import ComputeSettings, choose_compute, native_bf16
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.training.diagnostics import pairwise_device
from poise.training.train import train

CPU = torch.device("cpu")


def shipped(name: str, *changes: str) -> Recipe:
    recipe = load_table(name)
    for change in changes:
        set_value(recipe, change)
    return decode(recipe)


@pytest.mark.parametrize(
    ("abilities", "native"),
    [
        ({"avx512_f": True}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": False}, False),
    ],
)
def test_native_bf16_support_depends_on_the_processor(
    abilities: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert native_bf16(CPU) is native


def test_auto_uses_bf16_for_convolutions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "native_bf16", lambda device: True)
    assert choose_compute("cpu", "auto", shipped("dcgan")) == ComputeSettings(CPU, "bf16")
    assert choose_compute("cpu", "auto", shipped("ring")) == ComputeSettings(CPU, "fp32")
    assert choose_compute("cpu", "bf16", shipped("ring")) == ComputeSettings(CPU, "bf16")
    monkeypatch.setattr(compute, "native_bf16", lambda device: False)
    assert choose_compute("cpu", "auto", shipped("dcgan")) == ComputeSettings(CPU, "fp32")


def test_mps_is_used_if_available_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed on mps, because the test machine has none."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("mps", "mps:0"):
        assert choose_compute(name, "auto", shipped("dcgan")) == ComputeSettings(torch.device(name), "fp32")
    assert choose_compute("auto", "auto", shipped("ring")).device == CPU
    with pytest.raises(RecipeError, match=r"available devices: cpu .*, mps"):
        choose_compute("mps:1", "auto", shipped("ring"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="device is not available"):
        choose_compute("mps", "auto", shipped("ring"))


def test_mps_needs_no_float64() -> None:
    class Numbers:
        device = torch.device("mps")

        def float(self) -> str:
            return "float32"

    assert to_float64(Numbers()) == "float32"  # type: ignore[arg-type]
    assert to_float64(torch.ones(2)).dtype == torch.float64
    assert pairwise_device(torch.device("mps")) == CPU
    assert pairwise_device(torch.device("cuda")) == torch.device("cuda")


@pytest.mark.parametrize(("name", "current"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("auto", []), ("cpu", [])])
def test_a_device_with_a_number_becomes_the_current_one(
    name: str, current: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    assert choose_compute(name, "fp32", shipped("ring")).device.type == name.partition(":")[0].replace("auto", "cuda")
    assert made == current


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "gpu", ""])
def test_an_unavailable_device_is_refused_with_the_available_ones(name: str) -> None:
    with pytest.raises(RecipeError, match=r"--device.*available devices: cpu"):
        choose_compute(name, "auto", shipped("ring"))


def test_half_precision_is_refused_with_the_reason() -> None:
    with pytest.raises(
        RecipeError, match="must be auto, fp32 or bf16, found 'fp16'; gradient penalties overflow in fp16"
    ):
        choose_compute("cpu", "fp16", shipped("ring"))


def test_a_bf16_run_is_finite_and_recorded(tmp_path: Path) -> None:
    small = ["network.g.width=4", "network.d.width=4", 'network.d.norm="none"', "data.size=16", "batch=8", "steps=3"]
    tricks = 'tricks=[{kind="r1", gamma=0.1}, {kind="instance_noise"}, {kind="averaged_weights"}]'
    run = train(shipped("dcgan", *small, tricks, "log.rows=1"), tmp_path / "run", precision="bf16")
    assert run.info["precision"] == "bf16"
    assert json.loads((run.path / "run.json").read_text())["state"] == "done"
    assert len(run.rows) == 3  # a loss that is not finite would have ended it
    assert run.sample(4).dtype == torch.float32
