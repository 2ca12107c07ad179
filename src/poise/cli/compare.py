"""`poise compare`: the measures for any two sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from poise.cli import completion
from poise.cli.options import AsJson, DataRoot, Features, Measures, TrustNamedCode
from poise.cli.results import print_result, progress_bar
from poise.utils.printing import print_json

if TYPE_CHECKING:
    from poise.core.types import Shape
    from poise.data.config import DataConfig
    from poise.data.facts import ImageFacts
    from poise.data.source import DataSplits
    from poise.runs.run import Run


def compare(
    fake: Annotated[
        str,
        typer.Argument(
            help="Images as a folder, .zip or .npz, or a run: its folder, or its URL in an object store.",
            autocompletion=completion.data,
        ),
    ],
    real: Annotated[
        str,
        typer.Argument(
            help="The images to compare with: the same, or the name of a data set.", autocompletion=completion.data
        ),
    ],
    measures: Measures = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=2,
            max=1_000_000,
            help="The number of images of each.",
            show_default="half of REAL, at most 5,000",
        ),
    ] = None,
    features: Features = "auto",
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="The image size at which to compare.",
            show_default="that of REAL, or of FAKE if REAL has several",
        ),
    ] = None,
    as_json: AsJson = False,
    data_root: DataRoot = None,
    trust_code: TrustNamedCode = False,
) -> None:
    """Compare two sets of images: the quality and variety of FAKE, with REAL as the reference.

    A run folder stands for samples from that run. Two run folders, without options, are compared by their recipes,
    progress, measures and alarms instead.
    """
    if measures is None and n is None and size is None and features == "auto" and _are_runs(fake, real):
        from poise.cli.compare_view import print_comparison
        from poise.runs.compare_runs import compare_runs
        from poise.runs.remote_runs import local_run
        from poise.utils.paths import expand_home

        comparison = compare_runs(*(local_run(expand_home(run)) for run in (fake, real)))
        if as_json:
            print_json(comparison.as_json())
        else:
            print_comparison(comparison)
        return
    from poise.data.facts import image_facts, native_size
    from poise.data.notes import notes_for_comparison
    from poise.measure.catalogue import select_measures
    from poise.measure.compare import compare as compare_data
    from poise.runs.run import Run

    selected = select_measures(measures)
    sources = [_open_source(value, name, trust_code) for value, name in ((fake, "FAKE"), (real, "REAL"))]
    fake_side, real_side = (_Side(one, None if isinstance(one, Run) else image_facts(one)) for one in sources)
    with progress_bar() as progress:
        fake_data, real_data, config = _load_both(fake_side, real_side, size, n, data_root)
        result = compare_data(
            fake_data,
            real_data,
            selected,
            data_config=config,
            n=n,
            features=features,
            progress=progress,
            trust_code=trust_code,
        )
    notes, final = list(result.notes), real_data.train.shape[1:]
    for name, (source, facts), data in (("FAKE", fake_side, fake_data), ("REAL", real_side, real_data)):
        original = source.shape[1:] if isinstance(source, Run) else native_size(source, facts)
        has_one_size = facts is None or facts.has_one_size  # a note on the data says which sizes were converted
        told = original is not None and original != final and has_one_size
        if told:
            resized = f"was resized from {_pixels(original)} to {_pixels(final)} pixels (Lanczos, antialiased)"
            notes.append(f"{name} {resized}, which affects the results")
        grey = data.train.shape[0] < 3
        if isinstance(source, Run):
            was_grey = source.generated_shape[0] < 3
            notes += [f"{name} is {note}" for note in data.notes]
        else:
            was_grey = grey if facts is None else facts.grey
            notes += [f"{name}: {note}" for note in notes_for_comparison(data.notes, resizing=not told)]
        if was_grey != grey:
            converted = "colour images are converted to grey" if grey else "grey images get three equal channels"
            notes.append(f"{name}: {converted}")
        notes += [f"{name}: {warning.message}; {warning.cure}" for warning in data.warnings]
    print_result(result._replace(notes=tuple(notes)), as_json=as_json, brief=measures in (None, "all"))


def _pixels(size: Sequence[int]) -> str:
    """Height x width, or the side of a square."""
    height, width = size
    return str(height) if height == width else f"{height} x {width}"


def _are_runs(*values: str) -> bool:
    """Whether all arguments are run folders."""
    from poise.runs.folder import is_run_folder
    from poise.utils.paths import expand_home, url_of

    try:
        return all(url_of(value) is not None or is_run_folder(expand_home(value)) for value in values)
    except (OSError, ValueError):  # too long for a name, a null byte
        return False


def _open_source(value: str, argument: str, trust_code: bool) -> DataConfig | Run:
    """The data, or the run, that an argument names."""
    from poise.data.folder import FolderConfig
    from poise.data.lookup import data_config
    from poise.data.two_domains import TwoDomainsConfig
    from poise.errors import DataError
    from poise.runs.run_samples import open_run
    from poise.utils.paths import url_of

    if url_of(value) is not None and (run := open_run(value, argument, trust_code=trust_code)) is not None:
        return run
    config = data_config(value, option=argument, two_domains=False)
    if isinstance(config, TwoDomainsConfig):
        cure = "give the images of one, such as its folder b"
        raise DataError("images of two domains can't be compared as one set", where=argument, found=value, cure=cure)
    run = open_run(Path(config.path), argument, trust_code=trust_code) if isinstance(config, FolderConfig) else None
    return run or config


class _Side(NamedTuple):
    """What an argument names, with the facts about it, which are found out once; None for a run, or if unknown."""

    source: DataConfig | Run
    facts: ImageFacts | None


def _load_both(
    fake_side: _Side, real_side: _Side, size: int | None, n: int | None, data_root: Path | None
) -> tuple[DataSplits, DataSplits, DataConfig]:
    """FAKE and REAL with the same size and number of channels, and the config of REAL."""
    from poise.data.facts import at_native_size, without_held_out
    from poise.data.source import SizedSource
    from poise.measure.compare import default_num_samples, match_channels, match_fit
    from poise.measure.evaluator import MAX_SAMPLES
    from poise.runs.run import Run
    from poise.runs.run_samples import run_samples

    (fake, fake_facts), (real, real_facts) = fake_side, real_side

    def load_fake(shape: Shape, num_samples: int) -> DataSplits:
        pixels = _image_size(shape)
        if isinstance(fake, Run):
            return run_samples(fake, n or num_samples, pixels, shape[0])
        config = match_fit(fake, real.recipe.data) if isinstance(real, Run) else fake
        return _load(
            match_channels(at_native_size(without_held_out(config), pixels, fake_facts), shape[0]), "FAKE", data_root
        )

    square = None if size is None else (size, size)
    if isinstance(real, Run):
        pixels = square or _image_size(real.shape)
        assert pixels is not None, "a run that is opened for a comparison has images"
        fake_data = load_fake((real.generated_shape[0], *pixels), MAX_SAMPLES)
        num_fake = len(fake_data.train) if isinstance(fake_data.train, SizedSource) else MAX_SAMPLES
        num_real = 4 * min(n or MAX_SAMPLES, num_fake)  # others for the floors, and to train features on
        seed = 1 if isinstance(fake, Run) else 0  # of two runs, samples of the same latents would not be independent
        return fake_data, run_samples(real, num_real, pixels, seed=seed), real.recipe.data
    config = match_fit(real, fake.recipe.data) if isinstance(fake, Run) else real
    config = at_native_size(without_held_out(config), square or _size_of_fake(fake_side, real, real_facts), real_facts)
    real_data = _load(config, "REAL", data_root)
    return load_fake(real_data.train.shape, default_num_samples(real_data)), real_data, config


def _size_of_fake(fake_side: _Side, real: DataConfig, real_facts: ImageFacts | None) -> tuple[int, int] | None:
    """The size of FAKE if it is the one to compare at, None if that of REAL is."""
    from poise.data.facts import limited
    from poise.runs.run import Run

    fake, fake_facts = fake_side
    real_varies = real_facts is not None and not real_facts.has_one_size
    if isinstance(fake, Run):
        size = _image_size(fake.shape)
        resized = size is not None and size[0] == size[1] and real_facts is not None and not real_varies
        return None if resized and real.paths else size  # one that is not square keeps what it has learned
    if real_varies and fake_facts is not None and fake_facts.has_one_size:
        return limited(fake_facts.size)
    return _size_padded_to(real, fake_facts)


def _size_padded_to(real: DataConfig, fake: ImageFacts | None) -> tuple[int, int] | None:
    """The size of FAKE, if REAL consists of smaller images that are padded; None if REAL has a size of its own.

    REAL is padded to its default size at most, as larger images of FAKE are rather enlarged than padded.
    """
    from poise.data.config import ImageDataConfig
    from poise.data.facts import padded_from

    native = padded_from(real)
    if native is None or fake is None or not isinstance(real, ImageDataConfig):
        return None
    height, width = fake.size
    return fake.size if native <= height == width <= max(real.height_width) else None


def _load(config: DataConfig, argument: str, data_root: Path | None) -> DataSplits:
    """The data; an error names the argument."""
    from poise.data.paths import located
    from poise.errors import DataError

    try:
        return config.load(data_root)
    except DataError as error:
        raise located(error, argument) from None


def _image_size(shape: Shape) -> tuple[int, int] | None:
    """Height and width of samples; None for points."""
    return (shape[1], shape[2]) if len(shape) == 3 else None
