"""A closed walk through random latents, as the frames of a video: it ends where it began."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.runs.generate import generate
from poise.runs.run import Run

Interpolation = Callable[[Tensor, Tensor, float], Tensor]


def walk_positions(keyframes: int, frames: int) -> list[tuple[int, float]]:
    """The positions of equally spaced frames on a closed walk, each as the last keyframe passed and the fraction of the
    way to the next one. The first frame is keyframe 0; after the last frame the walk arrives there again.

    Raises:
        ValueError: there are fewer frames than keyframes.
    """
    if not 0 < keyframes <= frames:
        raise ValueError(f"{frames} frames are too few for {keyframes} keyframes")
    return [(frame * keyframes // frames, frame * keyframes % frames / frames) for frame in range(frames)]


def closed_walk(keyframes: Tensor, frames: int, interpolation: Interpolation) -> Iterator[Tensor]:
    """The latents of each frame, R x dim, of R closed walks side by side.

    Args:
        keyframes: the latents that the walks pass through, R x N x dim.
        frames: the number of frames, at least N.
        interpolation: from a latent to the next one, such as `slerp`.
    """
    num = keyframes.shape[1]
    for keyframe, fraction in walk_positions(num, frames):
        yield interpolation(keyframes[:, keyframe], keyframes[:, (keyframe + 1) % num], fraction)


def walk_samples(
    run: Run,
    keyframes: int,
    frames: int,
    interpolation: Interpolation,
    *,
    walks: int = 1,
    seed: int = 0,
    label: int | None = None,
    raw: bool = False,
    project: bool = True,
) -> Iterator[Tensor]:
    """The samples of each frame, R x shape, of R closed walks; nothing else of the walk is kept in memory.

    Args:
        run: the run.
        keyframes: the number of random latents that each walk passes through. The first walk passes through the first
            latents of this seed, those of `Run.sample`.
        frames: the number of frames.
        interpolation: from a latent to the next one.
        walks: the number of walks, R.
        seed: the seed of the latents and of random layers, which draw the same in all frames.
        label: the label of all walks; by default each walk has a class.
        raw: whether to use the non-averaged weights.
        project: whether the latents are mapped to the support of the latent distribution (`Latent.to_support`).
    """
    run.check_space()
    latent, net, streams = run.recipe.latent, run.generator(raw=raw), RandomStreams(seed)
    latents = run.latents(walks * keyframes, seed).unflatten(0, (walks, keyframes))
    labels = run.labels_by_row(walks) if label is None else run.labels(walks, label)
    for z in closed_walk(latents, frames, interpolation):
        yield generate(net, latent.to_support(z) if project else z, labels, streams=streams, block=walks)
