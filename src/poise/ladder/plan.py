"""The four rungs: shipped recipes, made equal in all that is not what makes them themselves."""

from __future__ import annotations

from typing import Any

from poise.recipe.shipped import load_table
from poise.recipe.toml import Table

RUNGS = {"autoencoder": "autoencoder", "vae": "vae", "gan": "dcgan", "vae-gan": "vae-gan"}
"""Each rung's folder, from the bottom up, and the shipped recipe it is."""

REFERENCE = "vae"
"""The recipe whose decoder, latents, data and batch all rungs share."""

STEPS = 3000


def ladder_tables(
    data: Table | None = None, steps: int = STEPS, seed: int = 0, batch: int | None = None
) -> dict[str, Table]:
    """A recipe's table for each rung.

    Decoder, latents, data, batch, number of steps and seed are the same; so every rung sees the same pictures in the
    same order, and its decoder begins with the same weights. Rates, encoders and discriminators are each recipe's own.
    All are measured alike, every half of the way and at the end.

    Args:
        data: the recipe's table `data`; the model's own if left out.
        steps: of each rung.
        seed: of each rung.
        batch: pictures in a step.
    """
    model = load_table(REFERENCE)
    shared: dict[str, Any] = {
        "data": data or model["data"],
        "latent": model["latent"],
        "batch": batch or model["batch"],
        "steps": steps,
        "seed": seed,
        "log": {"rows": 50, "samples": max(1, steps // 6), "saves": max(1, steps // 6)},
        "measure": {"every": max(1, steps // 2), "measures": ["fid", "coverage", "high_frequencies"]},
    }
    rungs: dict[str, Table] = {}
    for rung, name in RUNGS.items():
        own = load_table(name)
        networks = own["network"] | {"g": model["network"]["g"]}
        rungs[rung] = own | shared | {"name": rung, "network": networks}
    return rungs
