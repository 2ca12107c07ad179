"""The safetensors format: the weights of a plain generator with its description, from which it is rebuilt."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec
from poise.engine.build import build_generator
from poise.errors import CheckpointError, RecipeError
from poise.export.description import Description
from poise.export.network import ExportedGenerator, plain_copy, replace_by_means
from poise.networks.translation import translator_to
from poise.runs.code_copies import use_code_beside
from poise.runs.generate import sample_latents
from poise.runs.labels import check_labels
from poise.runs.translate import check_sources, part_of
from poise.truncation import check_truncation
from poise.user_code.loading import allow_user_code

OTHER_READERS = {".onnx": "onnxruntime", ".pt2": "torch.export.load"}
"""What reads the files of the other formats of `poise export`."""


class LoadedGenerator(ExportedGenerator):
    """A generator read from a file: `generator(latents[, labels])` returns samples, B x shape.

    One that translates is given images, B x C x H x W, in place of latents.

    Attributes:
        description: what the file says about it.
    """

    def __init__(self, net: nn.Module, description: Description) -> None:
        super().__init__(net)
        self.description = description

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | list[int] | None = None,
        truncation: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """See `ExportedGenerator.forward`.

        Raises:
            RecipeError: the latents have another shape, or the images can't be translated (`Run.translate`); labels are
                missing, not taken or not one class of the training data for each sample; the truncation is out of
                range, or no layer truncates.
        """
        self._check_first(latents)
        if (labels is None) is self.takes_labels:
            what, cure = "this generator takes no labels", "leave them out"
            if self.takes_labels:
                what, cure = "this generator needs labels", f"give int64 labels, B, from 0 to {self.num_classes - 1}"
            raise RecipeError(what, where="labels", cure=cure)
        labels = None if labels is None else check_labels(labels, len(latents), self.num_classes)
        if truncation is not None:
            check_truncation(float(truncation))
            if not self.takes_truncation:
                latent = self.description.recipe.latent
                cure = "draw truncated latents instead: generator.latents(n, seed, truncation=F)"
                cure = f"leave it out: {latent.no_mode}" if latent.no_mode else cure
                raise RecipeError("no layer of this generator truncates", where="truncation", cure=cure)
        return super().forward(latents.float(), labels, truncation, noise)

    def _check_first(self, latents: Tensor) -> None:
        """Refuse latents, or images to translate, that don't fit.

        Raises:
            RecipeError: see `forward`.
        """
        recipe, shape = self.description.recipe, self.description.source_shape
        if shape:
            check_sources(latents, recipe, shape, "source")
        elif not latents.is_floating_point() or latents.dim() != 2 or latents.shape[1] != recipe.latent.dim:
            found = f"{str(latents.dtype).removeprefix('torch.')}, {' x '.join(map(str, latents.shape)) or 'a scalar'}"
            cure = "draw them with generator.latents(n, seed)"
            raise RecipeError(f"latents must be B x {recipe.latent.dim}", where="latents", found=found, cure=cure)

    @property
    def num_classes(self) -> int:
        """The number of classes of its training data."""
        return self.description.num_classes

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """n latents, n x dim; latent i is a function of (seed, i), the same as that of `poise sample`.

        Args:
            n: the number of latents.
            seed: the seed.
            truncation: F, above 0 and at most 1: nearer to the mode of their distribution, as `poise sample
                --truncation` draws them (`poise.latents.Latent.truncate`).

        Raises:
            RecipeError: F is out of range, or below 1 for a distribution without a mode or a generator whose layers
                truncate; or it translates, so that there are no latents.
        """
        check_truncation(truncation)
        if truncation < 1 and self.takes_truncation:
            what, cure = "the layers of this generator truncate, not its latents", "generator(latents, truncation=F)"
            raise RecipeError(what, where="truncation", cure=cure)
        latent = self.description.recipe.latent
        return latent.truncate(sample_latents(latent, n, RandomStreams(seed), "sample"), truncation)


def encode_generator(net: nn.Module, description: Description) -> bytes:
    """The contents of a safetensors file.

    Args:
        net: a network from `plain_copy`. Tensors that share memory are stored once, under their first name.
        description: becomes the metadata, to which "format" = "pt" is added, as other libraries expect.
    """
    return safetensors.torch.save(_distinct_tensors(net), {"format": "pt"} | description.as_text())


def _distinct_tensors(net: nn.Module) -> dict[str, Tensor]:
    tensors, seen = dict[str, Tensor](), set[int]()
    for name, tensor in net.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        tensors[name] = tensor
    return tensors


def load_generator(path: str | Path, *, trust_code: bool = False) -> LoadedGenerator:
    """Load a generator that `poise export --format safetensors` has written; the run is not needed.

    Args:
        path: the file.
        trust_code: whether the Python files that the generator needs may be executed. They must lie beside the file,
            where `poise export` writes them.

    Returns:
        The network on the CPU, in evaluation mode and float32.

    Raises:
        CheckpointError: the file can't be read, is damaged, or was not written by poise; or a Python file that it needs
            does not lie beside it.
        RecipeError: it needs Python files, and `trust_code` is not set.
    """
    path = Path(path)
    if path.suffix.lower() in OTHER_READERS:
        what, cure = "only safetensors files are read", f"run it with {OTHER_READERS[path.suffix.lower()]}"
        raise CheckpointError(what, where=str(path), cure=f"{cure}, or export with --format safetensors")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    return decode_generator(data, str(path), path.parent, trust_code=trust_code)


def decode_generator(data: bytes, where: str, code: Path, *, trust_code: bool) -> LoadedGenerator:
    """The inverse of `encode_generator`.

    Args:
        data: the contents of a file.
        where: the file, for messages.
        code: the folder with the Python files that the generator needs, if it needs any.
        trust_code: whether they may be executed.

    Raises:
        CheckpointError, RecipeError: see `load_generator`.
    """
    description = Description.from_text(_metadata(data, where), where)
    recipe = use_code_beside(description.recipe, where, code, description.code)
    for part in (recipe.network.g, *recipe.tricks):
        allow_user_code(part, trust_code)
    data_spec = DataSpec(description.sample_shape, description.num_classes, num_samples=1, parts=description.parts)
    net = build_generator(recipe, data_spec, RandomStreams(recipe.seed))
    if description.direction:
        net = translator_to(net, part_of(description.direction, description.parts))
    net = plain_copy(net)
    if description.random_layers == MEANS:
        replace_by_means(net)
    _load_state(net, safetensors.torch.load(data), where)
    return LoadedGenerator(net, description).eval()


MEANS = "replaced by their means"
"""The value of `Description.random_layers` if the file contains no random layers although the run has some."""

GIVEN = "given as the input noise"
"""The value of `Description.random_layers` if the file's random layers take their numbers from an input."""


def _metadata(data: bytes, where: str) -> dict[str, str]:
    """The metadata in the header: 8 bytes with the length of a JSON table, then the table."""
    try:
        safetensors.deserialize(data)
        length = int.from_bytes(data[:8], "little")
        return json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"not an intact safetensors file: {error}", where=where) from None


@torch.no_grad()
def _load_state(net: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy the tensors into the network; nothing is changed unless all of them fit.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape or type.
    """
    expected = _distinct_tensors(net)
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in tensors
        or name not in expected
        or (tensors[name].shape, tensors[name].dtype) != (expected[name].shape, expected[name].dtype)
    )
    if wrong:
        what = f"its tensors do not fit its recipe: {', '.join(wrong[:10])}"
        raise CheckpointError(what, where=where, cure="use the version of poise that its metadata names")
    for name, tensor in expected.items():
        tensor.copy_(tensors[name])
