"""Exports a run's generator: encodes it, runs the result in its own engine, and compares that with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from poise.errors import RecipeError
from poise.export.comparison import BATCHES, Comparison, GenerateFn, compare
from poise.export.description import Description
from poise.export.formats import FORMATS, ExportFormat, require_packages
from poise.export.load import GIVEN, MEANS
from poise.export.network import (
    SOURCE,
    ExportedGenerator,
    ExportedTranslator,
    GeneratorInputs,
    ImageSizes,
    is_random,
    mean_layer,
    plain_copy,
    replace_by_means,
)
from poise.runs.code_copies import code_of_generator
from poise.runs.run import Run
from poise.runs.translate import OneDirection, Translator
from poise.utils.printing import count_noun

EXAMPLE_BATCH = 3
"""The batch size of the inputs that a graph is traced with; torch.export would treat 1 as a constant."""


class Export(NamedTuple):
    """An export that has passed its comparison.

    Attributes:
        data: the contents of the file.
        comparison: how far it is from PyTorch.
        engine: what it was run with for the comparison.
        inputs: the names of the inputs.
        description: what the file says about the generator.
        notes: what users should know about it.
        code: the Python files that must lie beside it, by their names.
    """

    data: bytes
    comparison: Comparison
    engine: str
    inputs: tuple[str, ...]
    description: Description
    notes: list[str]
    code: dict[str, bytes]


def export_generator(
    run: Run,
    name: str,
    *,
    raw: bool = False,
    no_noise: bool = False,
    license: str = "",
    direction: OneDirection | None = None,
) -> Export:
    """Encode the generator of a run, and compare the result with PyTorch.

    Of a generator that translates both ways, one direction is encoded, as a generator from images to images.

    Args:
        run: the run.
        name: the format, a key of `FORMATS`.
        raw: whether to use the non-averaged weights.
        no_noise: whether layers that draw random numbers are replaced by their means.
        license: an identifier of the licence, for the metadata.
        direction: of a generator that translates both ways, `a_to_b` (the default) or `b_to_a`.

    Raises:
        RecipeError: packages are missing, the network can't be expressed in this format, it draws random numbers that
            the format can't compare, or the result differs from PyTorch.
        CheckpointError: the run has no valid checkpoint.
    """
    require_packages(name)
    form, original = FORMATS[name], run.generator(raw=raw)
    translator: Translator | None = None
    if direction is not None or run.recipe.network.direction is not None:
        translator = Translator(original, run.recipe, run.shape, run.parts, direction)
        original = translator.net
    wrap = ExportedGenerator if translator is None else ExportedTranslator
    generator = wrap(plain_copy(original)).eval()
    sizes = None if translator is None else _image_sizes(translator)
    example = example_inputs(run, generator, EXAMPLE_BATCH, translator)
    description = Description.of(run, raw=raw, license=license, translator=translator)
    replaced = replace_by_means(generator.net) if no_noise else 0
    random = is_random(generator, example)
    if random and not form.keeps_random_layers:
        if sizes is None:  # else the number of random numbers would depend on the size
            generator.take_noise_as_input(example)
            example = example_inputs(run, generator, EXAMPLE_BATCH, translator)
        if is_random(generator, example):
            raise _refuse_random(generator.net, name)
    if not random and not form.keeps_random_layers:
        replace_by_means(generator.net)  # layers whose strength has fallen to 0: a graph can't contain their branch
    if generator.noise_dim:
        description = description._replace(random_layers=GIVEN, noise_dim=generator.noise_dim)
    else:
        description = description._replace(random_layers="kept" if random else MEANS if replaced else "none")
    traced = example
    if translator is not None and sizes is not None:
        size = _size_to_trace(translator.data_size, sizes)
        traced = example_inputs(run, generator, EXAMPLE_BATCH, translator, size)._replace(sizes=sizes)
    data = form.encode(generator, traced, description)
    reference = _callable(generator if random or replaced else wrap(original), original)
    batches = [example_inputs(run, generator, n, translator) for n in BATCHES]
    if translator is not None and sizes is not None:
        others = _other_sizes(translator.data_size, sizes)
        batches += [example_inputs(run, generator, BATCHES[0], translator, size) for size in others]
    code = run.folder.code if run.folder.code.is_dir() else Path()  # a run of an older version has no copies
    comparison = compare(reference, form.open(data, code), batches)
    if not comparison.passed:
        raise _refuse_difference(comparison, name, form)
    beside = code_of_generator(run.recipe) if form.needs_code else {}
    notes = _notes(description, replaced)
    return Export(data, comparison, form.engine, tuple(example.named), description, notes, beside)


def _image_sizes(translator: Translator) -> ImageSizes | None:
    """The sizes of images that are translated; None if it is that of the data only."""
    multiple, least = translator.size_multiple, translator.least_size
    return None if multiple is None or least is None else ImageSizes(multiple, least)


def _size_to_trace(size: tuple[int, int], sizes: ImageSizes) -> tuple[int, int]:
    """The size of the images that a graph is traced with: torch.export would treat a map of one pixel as a constant."""
    return max(size[0], 2 * sizes.multiple), max(size[1], 2 * sizes.multiple)


def _other_sizes(size: tuple[int, int], sizes: ImageSizes) -> list[tuple[int, int]]:
    """Heights and widths for the comparison: one with the smallest height, and one larger than the data's."""
    return [(sizes.least, sizes.least + sizes.multiple), (size[0] + sizes.multiple, size[1])]


def example_inputs(
    run: Run,
    generator: ExportedGenerator,
    n: int,
    translator: Translator | None = None,
    size: tuple[int, int] | None = None,
) -> GeneratorInputs:
    """n latents of seed n, and labels that run through the classes, if the generator takes any.

    In place of latents, a generator that starts from images gets images of noise, of `size` or that of the data.
    """
    labels = torch.arange(n) % len(run.classes) if generator.takes_labels else None
    noise = None
    if generator.noise_dim:
        noise = torch.randn(n, generator.noise_dim, generator=torch.Generator().manual_seed(n))
    if translator is not None:
        shape = (translator.in_shape[0], *(size or translator.in_shape[1:]))
        source = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))
        return GeneratorInputs(2 * source - 1, labels, noise=noise, first=SOURCE)
    truncation = torch.tensor(0.7) if generator.takes_truncation else None
    return GeneratorInputs(run.latents(n, seed=n), labels, truncation, noise)


def _callable(generator: ExportedGenerator, original: nn.Module) -> GenerateFn:
    """The generator as a function; the run's network is in evaluation mode during a call."""

    def generate(inputs: GeneratorInputs) -> torch.Tensor:
        training = original.training
        original.eval()
        try:
            return generator(*inputs.positional, **inputs.by_keyword)
        finally:
            original.train(training)

    return generate


def _refuse_random(net: nn.Module, name: str) -> RecipeError:
    has_means = any(mean_layer(module) is not None for module in net.modules())
    cure = "--no-noise replaces these layers by their means; " if has_means else ""
    what = "this generator draws random numbers itself, so the exported graph would not give the same results"
    return RecipeError(what, where=f"--format {name}", cure=f"{cure}--format safetensors keeps them")


def _refuse_difference(comparison: Comparison, name: str, form: ExportFormat) -> RecipeError:
    what = f"the exported generator differs from PyTorch when it is run with {form.engine}; nothing was written"
    cure = "use another format" if name == "safetensors" else "use --format safetensors"
    return RecipeError(
        what,
        where=f"--format {name}",
        found=f"a difference of {comparison.difference:.2g} (limit {comparison.limit:.2g})",
        cure=cure,
    )


def _notes(description: Description, replaced: int) -> list[str]:
    notes = []
    if description.random_layers == "kept":
        notes += ["this generator draws random numbers itself: the same inputs give other samples in each call"]
    if description.noise_dim:
        drawn = f"{description.noise_dim:,} numbers from N(0, 1) for each sample"
        notes += [f"this generator needs random numbers: its input 'noise' is {drawn}"]
    if replaced:
        layers = count_noun(replaced, "random layer")
        notes += [f"{layers} replaced by the mean: samples are not those of `poise sample`"]
    return notes
