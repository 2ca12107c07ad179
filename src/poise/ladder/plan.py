"""The recipes of the four models (rungs): shipped recipes with the same decoder, latents, data and budget."""

from __future__ import annotations

from typing import Any

from poise.recipe.shipped import load_table
from poise.recipe.toml import Table

RUNGS = {"autoencoder": "autoencoder", "vae": "vae", "gan": "dcgan", "vae-gan": "vae-gan"}
"""The folder of each rung, from the bottom up, and its shipped recipe."""

REFERENCE = "vae"
"""The recipe whose decoder, latents, data and batch size all rungs share."""

STEPS = 3000


def ladder_tables(
    data: Table | None = None, steps: int = STEPS, seed: int = 0, batch: int | None = None
) -> dict[str, Table]:
    """The recipe of each rung, as a table.

    All rungs have the same decoder, latents, data, batch size, number of steps and seed. So they are trained on the
    same images in the same order, and their decoders start from the same weights. Learning rates, encoders and
    discriminators are those of each recipe. All rungs are evaluated after half of the steps and at the end.

    Args:
        data: the table `data`; if None, that of the reference recipe.
        steps: the number of training steps of each rung.
        seed: the seed of each rung.
        batch: the batch size; if None, that of the reference recipe.
    """
    reference = load_table(REFERENCE)
    shared: dict[str, Any] = {
        "data": data or reference["data"],
        "latent": reference["latent"],
        "batch": batch or reference["batch"],
        "steps": steps,
        "seed": seed,
        "log": {"rows": 50, "samples": max(1, steps // 6), "saves": max(1, steps // 6)},
        "measure": {"every": max(1, steps // 2), "measures": ["fid", "coverage", "high_frequencies"]},
    }
    rungs: dict[str, Table] = {}
    for rung, name in RUNGS.items():
        recipe = load_table(name)
        networks = recipe["network"] | {"g": reference["network"]["g"]}
        rungs[rung] = recipe | shared | {"name": rung, "network": networks}
    return rungs
