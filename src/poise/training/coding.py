"""Codes once training is over, or stands still: real samples encoded, rebuilt, and held against their likelihood.

Like samples these are worked out in evaluation mode and float32; unlike samples they come from the live weights, since
no average of the encoder is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from poise.codes import drawn
from poise.core import Codes, Moment, Side
from poise.data.source import Finite, to_signed
from poise.errors import RecipeError
from poise.latents import Latent
from poise.measure.rebuilding import Coder
from poise.measure.sitting import AT_ONCE
from poise.networks.base import coded
from poise.objectives.base import Rebuilding
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.training.game import Game
from poise.training.run import Run
from poise.training.sampling import generate


@contextmanager
def _calm(game: Game, dice: Dice) -> Iterator[None]:
    """G's encoder in evaluation mode, and its mode put back after."""
    encoder = game.g.encoder
    assert encoder is not None, "this game has no encoder"
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), dice.everywhere("sample/layers"):
            yield
    finally:
        encoder.train(training)


def encoded(game: Game, images: Tensor, places: Tensor, dice: Dice) -> Codes:
    """What G's encoder says of samples, B x shape, or of the training samples at `places`, B."""
    assert game.g.encoder is not None, "this game has no encoder"
    with _calm(game, dice):
        return coded(game.g.encoder, images, lambda: places)


def as_latents(latent: Latent, codes: Codes) -> Tensor:
    """The middle of each code's region, where latents lie: B x dim."""
    return latent.held(codes.mean.float())


def coder(recipe: Recipe, game: Game, dice: Dice) -> Coder | None:
    """What measures may ask of this run; None if it rebuilds nothing, or nothing but what it has trained on."""
    entry = recipe.network.e
    if entry is None or entry.by_place or recipe.labels.g is not None or not recipe.reads_codes:
        return None
    net, objective = game.g.net, recipe.objective
    nowhere, parts = torch.zeros(0), count()

    def rebuild(images: Tensor) -> Tensor:
        images = images.to(dice.device)
        return generate(net, as_latents(recipe.latent, encoded(game, images, nowhere, dice)), dice=dice).cpu()

    def bound(images: Tensor) -> dict[str, Tensor]:
        assert isinstance(objective, Rebuilding)
        moment = Moment(next(parts), 1, len(images), dice, Side.G)  # other coins and draws for each part
        seen = objective.seen(images.to(dice.device), moment)
        codes = encoded(game, seen, nowhere, dice)
        made = generate(net, recipe.latent.held(drawn(codes, moment.generator("codes"))), dice=dice)
        return {name: part.cpu() for name, part in objective.parts(seen, made, codes).items()}

    return Coder(recipe.latent.dim, rebuild, bound if objective.reads_region else None)


class Known(NamedTuple):
    """Training samples and where they lie.

    Attributes:
        images: float, B x shape.
        latents: float, B x dim: their codes.
        labels: int64, B; None where the data has none.
    """

    images: Tensor
    latents: Tensor
    labels: Tensor | None


def known(run: Run, source: Finite, places: Tensor) -> Known:
    """The training samples at `places`, encoded.

    Raises:
        RecipeError: this run has no encoder, G needs more than a code, or a sample is not there.
    """
    if run.recipe.network.e is None or not run.recipe.reads_codes:
        cure = "train one that has: poise train vae"
        raise RecipeError("this run encodes no pictures", where=str(run.path), found=run.recipe.name, cure=cure)
    if run.recipe.labels.g is not None:
        cure = "walk between latents of one class: --label"
        raise RecipeError("this run's G is told the class beside the code", where=str(run.path), cure=cure)
    beyond = [place for place in places.tolist() if place >= len(source)]
    if beyond:
        cure = f"they are numbered from 0 to {len(source) - 1:,}"
        raise RecipeError("there is no such training picture", where="--between", found=str(beyond[0]), cure=cure)
    batch = source.take(places)
    images = to_signed(batch.images)
    dice, latent = Dice(run.recipe.seed), run.recipe.latent
    some = zip(images.split(AT_ONCE), places.split(AT_ONCE), strict=True)
    codes = [as_latents(latent, encoded(run.game, part, here, dice)) for part, here in some]
    return Known(images, torch.cat(codes), batch.labels)


def directions(found: Known, kind: int) -> Tensor:
    """From each sample's own class to class `kind`: the difference of the classes' mean codes, B x dim.

    Adding it changes the class and, as far as codes keep them apart, nothing else (Radford 2015, section 6.3.2;
    White 2016, section 3.2 on attribute vectors).
    """
    assert found.labels is not None
    means = {int(k): found.latents[found.labels == k].mean(0) for k in found.labels.unique()}
    return torch.stack([means[kind] - means[int(own)] for own in found.labels])
