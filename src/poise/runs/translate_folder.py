"""Translates images with the G of a run and writes one PNG file for each of them, under its own name.

Images are read, translated and written in batches of consecutive images of one size, so that memory does not grow with
their number. An image keeps its size if the network can translate it, otherwise it is fitted to the size of the data.
Which images share a batch, and so the random numbers of layers that draw some (dropout), depends on the sources alone:
a folder that was interrupted is continued with the same result. The record of a folder says which version of each image
was translated, so that one that has changed since is translated again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from poise.core.random_streams import derive_seed
from poise.data.any_images import StoredImage, StoredImages, UnreadableImage, stored_images
from poise.data.fit import TargetFormat, convert_array
from poise.data.listing import HIDDEN, display_name, ignored_reason
from poise.data.paths import WHERE
from poise.data.source import BadFile
from poise.errors import DataError, RecipeError
from poise.runs.generate import BLOCK
from poise.runs.image_folder import OTHER_FOLDER, check_place, check_record, origin_of, refuse_entry
from poise.runs.run import Run
from poise.runs.translate import OneDirection, Translator
from poise.utils.batch_files import write_files
from poise.utils.files import make_folder, remove_file, write_json
from poise.utils.image_grid import encode_png, in_colour
from poise.utils.images import Bytes, to_bytes, to_float
from poise.utils.locks import claimed_folder
from poise.utils.paths import expand_home
from poise.utils.progress import Progress, no_progress
from poise.utils.system import disk_errors
from poise.utils.temporary import remove_orphans

RECORD, LOCK, OPTION = "translations.json", ".translations.lock", "--out"
SOURCES = "sources"
"""The key of the record with the version of each image."""

NAMED = ("data", "direction", "step", "seed", "copies", "label", "weights")
"""The differences between two origins that an error names."""

Size = tuple[int, int]


class Settings(NamedTuple):
    """How images are translated.

    Attributes:
        direction: of a G that translates both ways, `a_to_b` or `b_to_a`; None otherwise.
        seed: the seed of layers that draw random numbers.
        copies: the number of translations of each image.
        label: the label that G is given; None if it takes none.
        raw: whether the non-averaged weights are used.
    """

    direction: OneDirection | None = None
    seed: int = 0
    copies: int = 1
    label: int | None = None
    raw: bool = False


class Planned(NamedTuple):
    """An image that is to be translated: its source, the size it is translated at, and the names of its files."""

    image: StoredImage
    size: Size
    files: tuple[str, ...]


class Translated(NamedTuple):
    """An image, H x W x C, and its translations, H x W x C' each, uint8."""

    source: Bytes
    outputs: tuple[Bytes, ...]


class Result(NamedTuple):
    """What was done.

    Attributes:
        images: the number of images that are in the folder as translations.
        written: the number of files that were written now.
        present: the number of files that were there before.
        renewed: the number of files that were there, but of images that have changed since, and were written again.
        fitted: the number of images that were fitted to the size of the data.
        bad: the files that can't be used.
        shown: the first images with their translations, for a grid.
    """

    images: int
    written: int
    present: int
    renewed: int
    fitted: int
    bad: list[BadFile]
    shown: list[Translated]


def translate_folder(
    run: Run, data: str, out: Path, settings: Settings, *, show: int = 0, progress: Progress = no_progress
) -> Result:
    """Translate all images of a source, and write those translations that are not there yet.

    Args:
        run: a run whose G translates images.
        data: a folder, a zip or npz archive, or an image file.
        out: the folder for the translations, which is created if necessary.
        settings: how they are translated.
        show: the number of images to return with their translations.
        progress: called with the progress of the work.

    Raises:
        RecipeError: G does not translate images, or not in this way; or the folder has other files in it, such as
            translations of images that are gone, or is inside that of the images or of the training images.
        DataError: there are no images that can be used, or two would be written to one file.
        DiskError: a file can't be written; those that exist are complete.
    """
    translator = run.translator(settings.direction, label=settings.label, raw=settings.raw)
    if settings.copies > 1 and not translator.is_random:
        what = "this generator draws no random numbers when it translates: all copies of an image would be equal"
        raise RecipeError(what, where="--copies", found=str(settings.copies), cure="leave it out")
    check_place(out, OPTION, "translations can't be written into a folder of images", [data, *run.recipe.data.paths])
    with stored_images(data, translator.format) as sources:
        planned = _plan(translator, sources, settings)
        record = _record(run, translator, data, settings)
        found = _found(out, record, planned)  # before anything is written
        stale = _stale(out, translator, planned, found)
        present = found - stale
        with claimed_folder(out, out / LOCK, f"{OPTION} {out}"):
            with disk_errors(out):
                for file in stale:
                    remove_file(out / file)
            work = _Work(run, translator, out, settings, present)
            shown, bad = work.all(planned, record | {SOURCES: _stamps(planned)}, show, progress)
            bad = [*sources.bad, *bad]
            unreadable = {file.name for file in bad}
            done = [one for one in planned if display_name(one.image.name) not in unreadable]
            with disk_errors(out):
                if not done:  # the folder has no translation, so that it can be used for those of other images
                    remove_file(out / RECORD)
                remove_file(out / LOCK)
    if not done:
        examples = ", ".join(f"{file.name} ({file.reason})" for file in bad[:3])
        raise DataError("none of the images can be used", where=WHERE, found=examples)
    fitted = sum(one.size != one.image.size for one in done)
    return Result(len(done), work.written, len(present), len(stale), fitted, bad, shown)


def _plan(translator: Translator, sources: StoredImages, settings: Settings) -> list[Planned]:
    """The size and the files of each image.

    Raises:
        DataError: two images have the same file.
    """
    planned, owners = list[Planned](), dict[str, str]()
    for image in sources.images:
        size = image.size if translator.keeps_size(image.size) else translator.data_size
        files = file_names(image.name, settings.copies)
        for file in files:
            if file in owners:
                names = " and ".join(display_name(name) for name in (owners[file], image.name))
                cure = "rename one of them, or move it to another folder"
                raise DataError(f"two images would be written to {file}", where=WHERE, found=names, cure=cure)
            owners[file] = image.name
        planned.append(Planned(image, size, files))
    return planned


def file_names(name: str, copies: int = 1) -> tuple[str, ...]:
    """The names of the files of an image: its own, with the ending .png, and numbered if there are several."""
    stem = str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).suffix else name
    return (f"{stem}.png",) if copies == 1 else tuple(f"{stem}-{number}.png" for number in range(1, copies + 1))


def batches(planned: Sequence[Planned], size: Size) -> Iterator[list[Planned]]:
    """Consecutive images of equal size, at most as many as a block has samples, and as many pixels.

    Args:
        planned: the images.
        size: the size of the data: a batch has at most the pixels of a block of its images, or one image.
    """
    budget, batch = BLOCK * size[0] * size[1], list[Planned]()
    for one in planned:
        most = min(BLOCK, max(1, budget // (one.size[0] * one.size[1])))
        if batch and (one.size != batch[0].size or len(batch) == most):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


class _Work:
    """The translation of batches.

    Attributes:
        written: the number of files that were written.
    """

    def __init__(self, run: Run, translator: Translator, out: Path, settings: Settings, present: set[str]) -> None:
        self.run, self.translator, self.out, self.settings, self.present = run, translator, out, settings, present
        self.written = 0

    def all(
        self, planned: Sequence[Planned], record: Mapping[str, Any], show: int, progress: Progress
    ) -> tuple[list[Translated], list[BadFile]]:
        """Translate all images; the first `show` of them with their translations, and those that can't be decoded."""
        remove_orphans(self.out)
        write_json(self.out / RECORD, dict(record))
        shown, bad, done = list[Translated](), list[BadFile](), 0
        for number, batch in enumerate(batches(planned, self.translator.data_size)):
            progress(f"translating: {done:,} of {len(planned):,}", done / len(planned))
            done += len(batch)
            if len(shown) >= show and all(file in self.present for one in batch for file in one.files):
                continue
            usable, pixels = _decode(batch, self.translator.format, bad)
            if usable:
                outputs = self._translate(number, pixels)
                self._write(usable, outputs)
                for row in range(min(len(usable), show - len(shown))):
                    shown.append(Translated(pixels[row], tuple(images[row] for images in outputs)))
        return shown, bad

    def _translate(self, number: int, pixels: Bytes) -> list[Bytes]:
        """The translations of a batch, B x H x W x C', one array for each copy."""
        images = to_float(torch.from_numpy(pixels))
        outputs = []
        for copy in range(self.settings.copies):
            translated = to_bytes(self.translator(images, copy_seed(self.settings.seed, copy), number))
            outputs.append(translated if self.run.alpha else in_colour(translated))
        return outputs

    def _write(self, batch: Sequence[Planned], outputs: Sequence[Bytes]) -> None:
        """Write the files of a batch that are not there yet."""
        contents: dict[Path, bytes] = {}
        for row, one in enumerate(batch):
            for file, images in zip(one.files, outputs, strict=True):
                if file not in self.present:
                    contents[self.out / file] = encode_png(images[row])
        with disk_errors(self.out):
            for place in {path.parent for path in contents}:
                if not place.is_dir():
                    make_folder(place)
                remove_orphans(place)
        write_files(contents)
        self.written += len(contents)


def _decode(batch: Sequence[Planned], target: TargetFormat, bad: list[BadFile]) -> tuple[list[Planned], Bytes]:
    """The images of a batch that can be decoded, with their pixels, B x H x W x C; adds the others to `bad`.

    Those that can't keep their size are fitted to that of the data, as its own images are.
    """
    usable, pixels = list[Planned](), list[Bytes]()
    for one in batch:
        try:
            image = one.image.read()
        except UnreadableImage as error:
            bad.append(BadFile(display_name(one.image.name), str(error)))
            continue
        usable.append(one)
        pixels.append(convert_array(image[None], target._replace(size=one.size))[0])
    return usable, np.stack(pixels) if pixels else np.empty((0, 1, 1, 1), np.uint8)


def copy_seed(seed: int, copy: int) -> int:
    """The seed of the random layers for a copy; that of the first is the seed itself."""
    return seed if copy == 0 else derive_seed(seed, "translate/copy", copy)


def _record(run: Run, translator: Translator, data: str, settings: Settings) -> dict[str, Any]:
    """The content of `translations.json`."""
    return {
        **origin_of(run, raw=settings.raw),
        "direction": translator.direction,
        "data": str(expand_home(data).resolve()),
        "seed": settings.seed,
        "copies": settings.copies,
        "label": None if settings.label is None else run.classes[settings.label],
    }


def _stamps(planned: Sequence[Planned]) -> dict[str, list[int]]:
    """Which version of each image is translated."""
    return {one.image.name: list(one.image.stamp) for one in planned}


def _recorded(out: Path) -> dict[str, list[int]] | None:
    """The versions of the images that were translated; None if there is no record of them, as of older versions."""
    try:
        recorded = json.loads((out / RECORD).read_bytes())[SOURCES]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return recorded if isinstance(recorded, dict) else None


def _found(out: Path, record: Mapping[str, Any], planned: Sequence[Planned]) -> set[str]:
    """The translations that are in the folder already.

    Raises:
        RecipeError: there is something else in it, or they have another origin.
    """
    expected = {file for one in planned for file in one.files}
    found = set(_files(out))
    if RECORD in found:
        check_record(out, RECORD, OPTION, record, NAMED)
        found.remove(RECORD)
        strange = found - expected
        before = {file for name in _recorded(out) or () for file in file_names(name, record["copies"])}
        if gone := strange & before:
            what = "has translations of images that are no longer there, or can't be used"
            raise RecipeError(what, where=f"{OPTION} {out}", found=f"'{min(gone)}'", cure=OTHER_FOLDER)
    else:
        strange = found
    if strange:
        raise refuse_entry(out, OPTION, min(strange))
    return found


def _stale(out: Path, translator: Translator, planned: Sequence[Planned], found: set[str]) -> set[str]:
    """The translations of images that have changed since; all, if layers are random.

    Which images share a batch, and with it their random numbers, depends on the names and sizes of all of them.
    """
    recorded, stamps = _recorded(out), _stamps(planned)
    if recorded is None:
        return set()
    if recorded != stamps and translator.is_random:
        return found
    changed = {name for name, stamp in stamps.items() if recorded.get(name, stamp) != stamp}
    return found & {file for one in planned if one.image.name in changed for file in one.files}


def _files(folder: Path) -> Iterator[str]:
    """The files below a folder, relative to it, without hidden ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if ignored_reason(name) != HIDDEN]
        root = Path(place).relative_to(folder)
        yield from (str(PurePosixPath(root / name)) for name in files if ignored_reason(name) != HIDDEN)
