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

from poise.core.latent_codes import sample_codes
from poise.core.random_streams import RandomStreams
from poise.core.types import EncoderOutput, MoveContext, Side
from poise.data.source import SizedSource
from poise.engine.game import Game
from poise.errors import RecipeError
from poise.latents import Latent
from poise.measure.context import Reconstructor
from poise.measure.sample_set import BATCH
from poise.networks.base import call_encoder
from poise.objectives.base import ReconstructionObjective
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.utils.images import to_float


@contextmanager
def _calm(game: Game, streams: RandomStreams) -> Iterator[None]:
    """G's encoder in evaluation mode, and its mode put back after."""
    encoder = game.g.encoder
    assert encoder is not None, "this game has no encoder"
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), streams.seeded_global("sample/layers"):
            yield
    finally:
        encoder.train(training)


def encode_samples(game: Game, images: Tensor, places: Tensor, streams: RandomStreams) -> EncoderOutput:
    """What G's encoder says of samples, B x shape, or of the training samples at `places`, B."""
    assert game.g.encoder is not None, "this game has no encoder"
    with _calm(game, streams):
        return call_encoder(game.g.encoder, images, lambda: places)


def codes_to_latents(latent: Latent, codes: EncoderOutput) -> Tensor:
    """The middle of each code's region, where latents lie: B x dim."""
    return latent.project(codes.mean.float())


def make_reconstructor(recipe: Recipe, game: Game, streams: RandomStreams) -> Reconstructor | None:
    """What measures may ask of this run; None if it rebuilds nothing, or nothing but what it has trained on."""
    entry = recipe.network.e
    if entry is None or entry.by_index or recipe.labels.g is not None or not recipe.needs_codes:
        return None
    net, objective = game.g.net, recipe.objective
    nowhere, parts = torch.zeros(0), count()

    def rebuild(images: Tensor) -> Tensor:
        images = images.to(streams.device)
        return generate(
            net, codes_to_latents(recipe.latent, encode_samples(game, images, nowhere, streams)), streams=streams
        ).cpu()

    def bound(images: Tensor) -> dict[str, Tensor]:
        assert isinstance(objective, ReconstructionObjective)
        context = MoveContext(next(parts), 1, len(images), streams, Side.G)  # other coins and draws for each part
        seen = objective.prepare_real(images.to(streams.device), context)
        codes = encode_samples(game, seen, nowhere, streams)
        made = generate(net, recipe.latent.project(sample_codes(codes, context.generator("codes"))), streams=streams)
        return {name: part.cpu() for name, part in objective.loss_parts(seen, made, codes).items()}

    return Reconstructor(recipe.latent.dim, rebuild, bound if objective.needs_code_variance else None)


class EncodedSamples(NamedTuple):
    """Training samples and where they lie.

    Attributes:
        images: float, B x shape.
        latents: float, B x dim: their codes.
        labels: int64, B; None where the data has none.
    """

    images: Tensor
    latents: Tensor
    labels: Tensor | None


def encode_training_samples(run: Run, source: SizedSource, places: Tensor) -> EncodedSamples:
    """The training samples at `places`, encoded.

    Raises:
        RecipeError: this run has no encoder, G needs more than a code, or a sample is not there.
    """
    if run.recipe.network.e is None or not run.recipe.needs_codes:
        cure = "train one that has: poise train vae"
        raise RecipeError("this run encodes no pictures", where=str(run.path), found=run.recipe.name, cure=cure)
    if run.recipe.labels.g is not None:
        cure = "walk between latents of one class: --label"
        raise RecipeError("this run's G is told the class beside the code", where=str(run.path), cure=cure)
    beyond = [place for place in places.tolist() if place >= len(source)]
    if beyond:
        cure = f"they are numbered from 0 to {len(source) - 1:,}"
        raise RecipeError("there is no such training picture", where="--between", found=str(beyond[0]), cure=cure)
    batch = source.gather(places)
    images = to_float(batch.images)
    streams, latent = RandomStreams(run.recipe.seed), run.recipe.latent
    some = zip(images.split(BATCH), places.split(BATCH), strict=True)
    codes = [codes_to_latents(latent, encode_samples(run.game, part, here, streams)) for part, here in some]
    return EncodedSamples(images, torch.cat(codes), batch.labels)


def class_directions(found: EncodedSamples, kind: int) -> Tensor:
    """From each sample's own class to class `kind`: the difference of the classes' mean codes, B x dim.

    Adding it changes the class and, as far as codes keep them apart, nothing else (Radford 2015, section 6.3.2;
    White 2016, section 3.2 on attribute vectors).
    """
    assert found.labels is not None
    means = {int(k): found.latents[found.labels == k].mean(0) for k in found.labels.unique()}
    return torch.stack([means[kind] - means[int(own)] for own in found.labels])
