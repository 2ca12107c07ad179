"""Encoding and reconstructing real samples with the encoder of a run, during training or afterwards.

Like samples, codes and reconstructions are computed in evaluation mode and float32. Unlike samples, they come from the
non-averaged weights, since no average of the encoder is kept.
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
from poise.measure.sample_set import BATCH_SIZE
from poise.networks.base import call_encoder
from poise.objectives.base import ReconstructionObjective
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.utils.images import to_float


@contextmanager
def _evaluation_mode(game: Game, streams: RandomStreams) -> Iterator[None]:
    """Put G's encoder in evaluation mode, without gradients, and restore its mode afterwards."""
    encoder = game.g.encoder
    assert encoder is not None, "this game has no encoder"
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), streams.seeded_global("sample/layers"):
            yield
    finally:
        encoder.train(training)


def encode_samples(game: Game, images: Tensor, indices: Tensor, streams: RandomStreams) -> EncoderOutput:
    """The encoder's output for samples, B x shape; free codes need their `indices` in the training set, B."""
    assert game.g.encoder is not None, "this game has no encoder"
    with _evaluation_mode(game, streams):
        return call_encoder(game.g.encoder, images, lambda: indices)


def codes_to_latents(latent: Latent, codes: EncoderOutput) -> Tensor:
    """The mean of each code, projected to where latents lie: B x dim."""
    return latent.project(codes.mean.float())


def make_reconstructor(recipe: Recipe, game: Game, streams: RandomStreams) -> Reconstructor | None:
    """The reconstructor for measures; None if the run has none, or can reconstruct only its training samples."""
    encoder = recipe.network.e
    if encoder is None or encoder.by_index or recipe.labels.g is not None or not recipe.needs_codes:
        return None
    net, objective = game.g.net, game.objective.config  # of a user's objective, the one from the file
    no_indices, batches = torch.zeros(0), count()

    def reconstruct(images: Tensor) -> Tensor:
        codes = encode_samples(game, images.to(streams.device), no_indices, streams)
        return generate(net, codes_to_latents(recipe.latent, codes), streams=streams).cpu()

    def loss_parts(images: Tensor) -> dict[str, Tensor]:
        assert isinstance(objective, ReconstructionObjective)
        context = MoveContext(next(batches), 1, len(images), streams, Side.G)  # other random numbers for each batch
        real = objective.prepare_real(images.to(streams.device), context)
        codes = encode_samples(game, real, no_indices, streams)
        latents = recipe.latent.project(sample_codes(codes, context.generator("codes")))
        reconstruction = generate(net, latents, streams=streams)
        return {name: part.cpu() for name, part in objective.loss_parts(real, reconstruction, codes).items()}

    return Reconstructor(recipe.latent.dim, reconstruct, loss_parts if objective.needs_code_variance else None)


class EncodedSamples(NamedTuple):
    """Training samples and their latents.

    Attributes:
        images: float, B x shape.
        latents: float, B x dim: their codes.
        labels: int64, B; None if the data has none.
    """

    images: Tensor
    latents: Tensor
    labels: Tensor | None


def encode_training_samples(run: Run, source: SizedSource, indices: Tensor) -> EncodedSamples:
    """Encode the training samples with the given indices, B.

    Raises:
        RecipeError: the run has no encoder, its G is conditioned on the class, or an index is out of range.
    """
    if run.recipe.network.e is None or not run.recipe.needs_codes:
        cure = "train one that has an encoder: poise train vae"
        raise RecipeError(
            "this run has no encoder", where=str(run.path), found=f"the recipe {run.recipe.name}", cure=cure
        )
    if run.recipe.labels.g is not None:
        cure = "interpolate between latents of one class: --label"
        raise RecipeError("this run's generator is conditioned on the class", where=str(run.path), cure=cure)
    out_of_range = [index for index in indices.tolist() if index >= len(source)]
    if out_of_range:
        cure = f"they are numbered from 0 to {len(source) - 1:,}"
        raise RecipeError("no such training image", where="--between", found=str(out_of_range[0]), cure=cure)
    batch = source.gather(indices)
    images = to_float(batch.images)
    streams, latent = RandomStreams(run.recipe.seed), run.recipe.latent
    parts = zip(images.split(BATCH_SIZE), indices.split(BATCH_SIZE), strict=True)
    codes = [codes_to_latents(latent, encode_samples(run.game, *part, streams)) for part in parts]
    return EncodedSamples(images, torch.cat(codes), batch.labels)


def class_directions(samples: EncodedSamples, label: int) -> Tensor:
    """The direction from each sample's own class to class `label`: the difference of the classes' mean codes, B x dim.

    Adding it to a code changes the class and, as far as the codes are disentangled, nothing else (Radford 2015,
    section 6.3.2; White 2016, section 3.2 on attribute vectors).
    """
    assert samples.labels is not None
    means = {int(k): samples.latents[samples.labels == k].mean(0) for k in samples.labels.unique()}
    return torch.stack([means[label] - means[int(own)] for own in samples.labels])
