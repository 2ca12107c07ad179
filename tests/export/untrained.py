"""Runs that look trained without having been trained: thin networks of shipped recipes with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from poise.core.random_streams import RandomStreams
from poise.data.source import SizedSource
from poise.engine.batches import bind_latent
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.latents import Latent
from poise.networks.base import call_network
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.runs.code_copies import code_contents
from poise.runs.run import Run
from poise.user_code.loading import allow_user_code, code_hash
from poise.utils.files import write_folder

PASSES = 20
CPU = ComputeSettings(torch.device("cpu"), "fp32")


def thin(name: str, **changes: Any) -> Recipe:
    """A shipped recipe with narrow networks, some of its tables replaced."""
    table = load_table(name)
    narrow = {
        key: part | {"width": min(part["width"], 8)} if "width" in part else part
        for key, part in table["network"].items()
    }
    return decode(table | {"network": narrow} | changes)


def untrained(recipe: Recipe, folder: Path) -> Run:
    """A run with a recipe, `run.json`, and a game whose weights and statistics are those of no initialisation.

    The Python files that the recipe names are trusted, and copied into the run folder.
    """
    allow_user_code(recipe, True)
    source = recipe.data.load().train
    count = len(source) if isinstance(source, SizedSource) else None
    data = {"kind": recipe.data.tag(), "fingerprint": source.fingerprint, "shape": list(source.shape), "count": count}
    data |= {"classes": list(source.classes), "class_counts": list(source.class_counts), "parts": list(source.parts)}
    info = {"state": "done", "step": 7, "steps": 7, "seconds": 1.0, "recipe": recipe.hash, "data": data}
    write_folder(folder / "code", code_contents(recipe))
    (folder / "run.json").write_text(
        json.dumps(info | {"parameters": {"g": 1}, "precision": "bf16", "code": code_hash(recipe)})
    )
    (folder / "recipe.toml").write_text(recipe.to_toml())
    run = Run(folder, trust_code=True)
    allow_user_code(run.recipe, True)
    game = build_game(recipe, source.spec()._replace(calibration_samples=None), CPU, RandomStreams(0))
    latent = bind_latent(recipe.latent, source, CPU.device)
    for seed, raw in enumerate((True, False)):
        stir_(game.sampling_network(raw=raw), recipe, latent, len(source.classes), seed)
    run.__dict__["_opened"] = SimpleNamespace(step=7), game
    return run


@torch.no_grad()
def stir_(net: nn.Module, recipe: Recipe, latent: Latent, num_classes: int, seed: int) -> None:
    """Random weights, in place, and statistics that fit them; no layer keeps a value that a mistake could rely on."""
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    net.train()
    for _ in range(PASSES):
        latents = latent.sample(8, generator)
        labels = None if recipe.labels.g is None else torch.randint(num_classes, (8,), generator=generator)
        call_network(net, latents, labels)
    net.eval()
