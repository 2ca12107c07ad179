"""Writes the samples of a run to a folder, one PNG file each: `00000000.png`, or `cats/00000000.png` with classes.

A sample that consists of an image of each of two domains is two files, `a/00000000.png` and `b/00000000.png`.

Samples are generated in blocks, so that memory does not grow with their number. Every file is complete from the moment
it exists, and its name is the index of its sample, so a folder that was interrupted is continued by generating what is
missing. The file `samples.json` records what the samples are; a folder never mixes samples of two origins.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from poise.data.listing import HIDDEN, ignored_reason
from poise.errors import RecipeError
from poise.networks.translation import DOMAINS, GeneratedPart
from poise.runs.folder import RESERVED_NAMES
from poise.runs.generate import BLOCK
from poise.runs.image_folder import check_place, check_record, entries, origin_of, refuse_entry
from poise.runs.run import Run
from poise.utils.batch_files import write_files
from poise.utils.files import make_folder, remove_file, write_json
from poise.utils.image_grid import encode_png, in_colour
from poise.utils.images import to_bytes
from poise.utils.locks import claimed_folder
from poise.utils.printing import CONTROL_CHARACTERS
from poise.utils.progress import Progress, no_progress
from poise.utils.system import disk_errors
from poise.utils.temporary import remove_orphans

RECORD, LOCK, OPTION = "samples.json", ".samples.lock", "--dir"
NAMED = ("step", "seed", "label", "truncation", "weights")
"""The differences between two origins that an error names."""

MAX_SAMPLES = 1_000_000
FILE_NAME = re.compile(r"(\d{8})\.png")
FORBIDDEN = re.compile(rf'[<>:"/\\|?*~]|{CONTROL_CHARACTERS.pattern}')
"""What no file system, or not every one, allows in a name."""

MAX_NAME = 60
"""The largest number of characters of a class's folder; four bytes each are still below the limit of file systems."""


class Origin(NamedTuple):
    """What the samples of a folder are, apart from their number.

    Attributes:
        seed: the seed of the latents and labels.
        label: the label of all samples; None for the proportions of the training data.
        raw: whether the non-averaged weights are used.
        truncation: see `Run.sample`.
    """

    seed: int = 0
    label: int | None = None
    raw: bool = False
    truncation: float = 1.0


def write_samples(run: Run, folder: Path, n: int, origin: Origin, progress: Progress = no_progress) -> tuple[int, int]:
    """Write samples 0 to n - 1 of a run to a folder, except those that are there already.

    Sample i is the same image as sample i of `Run.sample`.

    Args:
        run: a run that generates images.
        folder: the folder, which is created if necessary.
        n: the number of samples.
        origin: which samples.
        progress: called with the progress of the work.

    Returns:
        The number of samples that were written, and the number of all samples in the folder.

    Raises:
        RecipeError: the run generates points, or the folder has other files in it, or other samples, or is inside the
            folder of the training images.
        DiskError: a file can't be written; those that exist are complete.
    """
    _check(run, folder)
    record = _record(run, origin)
    present = _present(folder, record)  # before anything is written
    with claimed_folder(folder, folder / LOCK, f"--dir {folder}"):
        for base in (folder, *(folder / name for name in record.get("domains", ()))):
            for place in (base, *(base / name for name in record["classes"])):
                remove_orphans(place)
        labels = run.labels(max([n, *(index + 1 for index in present)]), origin.label, origin.seed)
        _check_labels(folder, present, record["classes"], labels)
        write_json(folder / RECORD, record)
        missing = [index for index in range(n) if index not in present]
        for done, indices in _blocks(missing):
            progress(f"writing samples: {n - len(missing) + done:,} of {n:,}", (n - len(missing) + done) / n)
            _write_block(run, folder, indices, labels, record["classes"], origin)
        with disk_errors(folder):
            remove_file(folder / LOCK)
    return len(missing), len(present) + len(missing)


def _blocks(indices: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Ascending indices by the block that generates them, each with the number of indices before it."""
    done, block = 0, list[int]()
    for index in indices:
        if block and index // BLOCK != block[0] // BLOCK:
            yield done, block
            done, block = done + len(block), []
        block.append(index)
    if block:
        yield done, block


def _write_block(
    run: Run, folder: Path, indices: list[int], labels: Tensor | None, classes: Sequence[str], origin: Origin
) -> None:
    """Generate one block and write its samples at `indices`."""
    first = indices[0] // BLOCK * BLOCK
    block_labels = None if labels is None else labels[first : first + BLOCK]
    block = run.sample_block(
        first // BLOCK, origin.seed, labels=block_labels, raw=origin.raw, truncation=origin.truncation, whole=True
    )
    contents = {}
    for name, part in image_folders(run).items():
        samples = to_bytes(part.of(block))
        samples = samples if run.alpha else in_colour(samples)
        for index in indices:
            place = folder / name if labels is None else folder / name / classes[int(labels[index])]
            contents[place / f"{index:08d}.png"] = encode_png(samples[index - first])
    with disk_errors(folder):
        for place in {path.parent for path in contents}:
            make_folder(place)
    write_files(contents)


def image_folders(run: Run) -> dict[str, GeneratedPart]:
    """The images that G generates of a sample, by the folder of each: a and b if there are two, otherwise ""."""
    both = run.view.direction == "both_ways" or (run.view.direction is None and len(run.parts) == 2)
    if both:
        return {name: GeneratedPart(run.parts, index) for index, name in enumerate(DOMAINS)}
    return {"": run.generated_part()}


def _check(run: Run, folder: Path) -> None:
    """Refuse points, and a folder in which the samples would become training images."""
    if len(run.shape) != 3:
        cure = "write them as an array: --npz FILE.npz"
        raise RecipeError("this run generates points, not images", where=OPTION, cure=cure)
    what = "samples can't be written into the folder of the training images"
    check_place(folder, OPTION, what, run.recipe.data.paths)


def _record(run: Run, origin: Origin) -> dict[str, Any]:
    """The content of `samples.json`."""
    conditional = run.recipe.labels.g is not None
    return {
        **origin_of(run, raw=origin.raw),
        "seed": origin.seed,
        "label": None if origin.label is None else run.classes[origin.label],
        "truncation": origin.truncation,
        **({"domains": domains} if (domains := [name for name in image_folders(run) if name]) else {}),
        "classes": class_folders(run.classes) if conditional else [],
    }


def _present(folder: Path, record: dict[str, Any]) -> dict[int, str]:
    """The samples that are in the folder: the name of the class's folder, or "", by index.

    Raises:
        RecipeError: there is something else in it.
    """
    names = entries(folder)
    if not names:
        return {}
    started = RECORD in names
    if started:
        check_record(folder, RECORD, OPTION, record, NAMED)
    domains = record.get("domains", ())
    if not domains:
        return _present_in(folder, "", [name for name in names if name != RECORD], record["classes"], started=started)
    for name in names:
        if name != RECORD and not (started and name in domains and (folder / name).is_dir()):
            raise refuse_entry(folder, OPTION, name)
    first, second = (
        _present_in(folder, f"{name}/", entries(folder / name), record["classes"], started=started) for name in domains
    )
    return {index: place for index, place in first.items() if second.get(index) == place}


def _present_in(
    folder: Path, place: str, names: Sequence[str], classes: Sequence[str], *, started: bool
) -> dict[int, str]:
    """The samples in one place of the folder, by index; see `_present`.

    Args:
        folder: the folder.
        place: the path of the place in it, "" or such as "a/".
        names: what is there.
        classes: the names of the classes' folders.
        started: whether samples may be there.

    Raises:
        RecipeError: there is something else.
    """
    present: dict[int, str] = {}
    for name in names:
        if started and name in classes and (folder / place / name).is_dir():
            for inner in entries(folder / place / name):
                present[_index(folder, f"{place}{name}/{inner}")] = name
        else:
            present[_index(folder, f"{place}{name}", known=started and not classes)] = ""
    return present


def _index(folder: Path, name: str, *, known: bool = True) -> int:
    """The index of the sample in the file `name`.

    Args:
        folder: the folder.
        name: the path of the file in it.
        known: whether a sample may be there at all.

    Raises:
        RecipeError: it is not the file of a sample.
    """
    match = FILE_NAME.fullmatch(name.rpartition("/")[2])
    if match is None or not known or int(match[1]) >= MAX_SAMPLES:
        raise refuse_entry(folder, OPTION, name)
    return int(match[1])


def _check_labels(folder: Path, present: dict[int, str], classes: Sequence[str], labels: Tensor | None) -> None:
    """Refuse a file that is in the folder of another class.

    Raises:
        RecipeError: there is one.
    """
    if labels is None:
        return
    for index, name in present.items():
        if classes[int(labels[index])] != name:
            raise refuse_entry(folder, OPTION, f"{name}/{index:08d}.png")


def class_folders(classes: Sequence[str]) -> list[str]:
    """The names of the folders of classes: those of the classes, changed where a file system may not allow them.

    They are different even where upper and lower case are not distinguished, and a folder is not skipped as hidden when
    it is read back.
    """
    plain = [_plain_name(name) for name in classes]
    folded = [unicodedata.normalize("NFC", name).casefold() for name in plain]
    keeper: dict[str, int] = {}
    for label in sorted(range(len(plain)), key=lambda label: plain[label] != classes[label]):
        keeper.setdefault(folded[label], label)  # of equal names, one that was not changed stays as it is
    return [name if keeper[folded[label]] == label else f"{name}~{label}" for label, name in enumerate(plain)]


def _plain_name(name: str) -> str:
    """A name that every file system allows."""
    plain = FORBIDDEN.sub("_", name)[:MAX_NAME].rstrip(". ")
    if not plain or plain.lower().partition(".")[0] in RESERVED_NAMES or ignored_reason(plain) == HIDDEN:
        return f"_{plain}"
    return plain
