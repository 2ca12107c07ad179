"""The classes of images: by their folders, by a label file beside them, or by integer labels.

Classes are found from names and labels only, never from pixels. The decisions are reported in notes. Likely mistakes,
such as the splits of a data set treated as classes, are reported in warnings that say how to correct them.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.listing import display_name, sort_key
from poise.data.source import DataWarning, Labels
from poise.utils.printing import count_noun

MAX_NAMED = 8
"""The largest number of classes or folders that a message lists by name."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
}
"""Folder names of splits; those of two domains, such as `trainA` and `trainB`, count as well."""

NUMBERED_PART = re.compile(
    r"(images?|imgs?|pictures|photos|part|shard|chunk|batch|split|fold|archive)[-_ .]?\d+", re.IGNORECASE
)
"""Folder names of the numbered parts of a data set."""

MIN_FILL = 0.9
"""Each numbered part holds at least this fraction of the files of the largest one; the last part is exempt."""


class Classes(NamedTuple):
    """The classes of a set of images.

    Attributes:
        labels: the label of each image, from 0 without gaps, or None if the images have no classes.
        names: the class names by label.
        notes: how the classes were found.
        warnings: likely mistakes.
    """

    labels: Labels | None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[DataWarning, ...] = ()


class Container(NamedTuple):
    """The root folder or the archive that holds the images.

    Attributes:
        select_folder: returns the text, for a cure, that says how to select one of its folders as the data.
        outer_levels: the number of enclosing folders that need no note: 1 for an archive, which often has one.
    """

    select_folder: Callable[[str], str]
    outer_levels: int = 0


def stored_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes in the form in which runs and files store them: their own, in quotes if not printable.

    So they stay the same if they are written and read again. Different names stay different.
    """
    stored = tuple(name if name.isprintable() else repr(name) for name in names)
    return stored if len(set(stored)) == len(set(names)) else tuple(map(display_name, names))


def summary(labels: Labels, names: Sequence[str]) -> str:
    """One line, such as `3 classes: a, b, c; 120, 80, 4 images`; many classes are not all named."""
    counts = np.bincount(labels, minlength=len(names)).tolist()
    min_, max_ = min(counts), max(counts)
    each = f"{count_noun(max_, 'image')} each" if min_ == max_ else f"{min_:,} to {max_:,} images each"
    if len(names) > MAX_NAMED:
        return f"{len(names):,} classes, {each}: {', '.join(names[:3])}, ..."
    sizes = each if min_ == max_ else f"{', '.join(f'{n:,}' for n in counts)} images"
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}: {', '.join(names)}; {sizes}"


def classes_by_folder(names: Sequence[str], folders: Collection[str], container: Container) -> Classes:
    """Treat folders as classes: the outermost level at which the paths differ, if there are no images beside them.

    Folders that enclose everything are skipped. Numbered parts are not classes: at least two folders whose names are
    zero-padded numbers of the same width of at least three digits, which hold about equally many files and whose file
    numbering continues from one to the next (00000/img00000000.png, 00001/img00001000.png).

    Args:
        names: the paths of the usable images relative to the root, separated by "/".
        folders: all folders, with or without images.
        container: what holds the folders.
    """
    image_folders = Counter(posixpath.dirname(name) for name in names)
    base = posixpath.commonpath(image_folders) if image_folders else ""
    depth = len(base.split("/")) if base else 0
    empty = _empty_folders(image_folders, folders, base)
    notes = [f"{count_noun(len(empty), 'folder')} without a usable image: {_join(empty)}"] if empty else []
    paths = [name.split("/")[depth:] for name in names]
    tops = [path[0] if len(path) > 1 else None for path in paths]
    classes = sorted({top for top in tops if top is not None}, key=sort_key)
    if not classes:
        enclosed = depth > container.outer_levels
        enclosing = [f"all images are in one folder, {_shorten(base)}: they have no classes"] if enclosed else []
        return Classes(None, (), (*enclosing, *notes))
    if None in tops:
        at_top = count_noun(tops.count(None), "image")
        mixed = f"{at_top} at the top level and others in {count_noun(len(classes), 'folder')}"
        return Classes(None, (), (f"{mixed}: the folders are not treated as classes", *notes))
    if depth > container.outer_levels:
        notes.insert(0, f"all images are below {_shorten(base)}: its sub-folders are treated as classes")
    if _is_continuous(stems := _stems_by_folder(paths)):
        parts = f"the folders {classes[0]} to {classes[-1]} are numbered parts of the data set"
        why = "whose file numbering continues from one to the next"
        return Classes(None, (), (f"{parts}, {why}: they are not treated as classes",))
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[top] for top in tops if top is not None], np.int64)
    class_names = stored_names(classes)
    warnings = _folder_warnings(classes, paths, stems, lambda top: container.select_folder(posixpath.join(base, top)))
    return Classes(labels, class_names, (summary(labels, class_names), *notes), warnings)


def classes_by_table(names: Sequence[str], table: dict[str, str] | None, root: str = "") -> Classes:
    """The classes that StyleGAN's `dataset.json` defines; its numbered folders are not classes.

    Args:
        names: the paths of the usable images relative to the data's root.
        table: the label of each path relative to `root`, or None if the file states that there are no labels.
        root: the folder that holds the file.
    """
    if table is None:
        note = "dataset.json states that there are no labels: the folders are not treated as classes"
        return Classes(None, (), (note,))
    found = [table.get(posixpath.relpath(name, root) if root else name) for name in names]
    if missing := found.count(None):
        what = f"dataset.json has no label for {missing:,} of {count_noun(len(names), 'image')}"
        cure = "give every image a label, or remove the file: then folders are classes"
        return Classes(None, (), (), (DataWarning(f"{what}, so the images have no classes", cure, "T13"),))
    by_label = classes_by_label([label for label in found if label is not None])
    return by_label._replace(notes=tuple(f"from dataset.json: {note}" for note in by_label.notes))


def classes_by_label(words: Sequence[str], order: Sequence[str] = ()) -> Classes:
    """The classes of labels in words: every word that occurs is a class.

    Args:
        words: the label of each image.
        order: the words in the order of the classes, if it is known. Others follow: integers by value, then the rest.
    """
    known = {word: i for i, word in enumerate(order)}

    def position(word: str) -> tuple[int, bool, int, str]:
        return known.get(word, len(known)), not _is_integer(word), int(word) if _is_integer(word) else 0, word

    classes = sorted(set(words), key=position)
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[word] for word in words], np.int64)
    class_names = stored_names(classes)
    return Classes(labels, class_names, (summary(labels, class_names),) if classes else ())


def classes_by_number(integers: npt.NDArray[Any], names: Sequence[str] | None = None) -> Classes:
    """The classes of integer labels: every integer that occurs is a class, named by `names` or by itself.

    Args:
        integers: the label of each image: integers of any size and sign; with `names`, from 0 to len(names) - 1.
        names: the names of the integers 0, 1, ..., if they are known. Names without images are left out.
    """
    values, dense = np.unique(integers, return_inverse=True)
    labels = dense.reshape(-1).astype(np.int64)
    class_names = stored_names([str(int(v)) if names is None else str(names[int(v)]) for v in values])
    notes = [summary(labels, class_names)] if len(class_names) else []
    if names is not None and len(class_names) < len(names):
        unused = sorted(set(range(len(names))) - {int(value) for value in values})
        notes.append(f"classes without images are left out: {_join([str(names[i]) for i in unused])}")
    elif names is None and len(values) and int(values[-1]) != len(values) - 1:
        present = {int(value) for value in values}
        gap = next(integer for integer in count(min(0, *present)) if integer not in present)
        absent = f"; labels without images, such as {gap}, are not classes" if gap < max(present) else ""
        notes.append(f"the classes are named by their labels{absent}")
    return Classes(labels, class_names, tuple(notes))


def _folder_warnings(
    classes: list[str], paths: list[list[str]], stems: dict[str, list[str]], select_folder: Callable[[str], str]
) -> tuple[DataWarning, ...]:
    """A warning if the folders that are treated as classes look like something else."""
    subfolders: dict[str, set[str]] = {name: set() for name in classes}
    for path in paths:
        if len(path) > 2:
            subfolders[path[0]].add(path[1])
    counts = Counter(name for names in subfolders.values() for name in names if name.lower() not in SPLITS)
    repeated = sorted((name for name, n in counts.items() if n >= 2 and 2 * n > len(classes)), key=sort_key)
    best = min(
        classes,
        key=lambda name: ("train" not in _splits_named(name), len(subfolders[name]) < len(repeated), sort_key(name)),
    )
    if _are_splits(classes):
        repeats = f"; {_join(repeated)} repeat in them" if repeated else ""
        message = f"the folders {_join(classes)} look like splits of a data set, but are treated as classes{repeats}"
        return (DataWarning(message, f"use one of them: {select_folder(best)}", "T13"),)
    if len(repeated) > 1:
        message = f"the folders {_join(repeated)} repeat in {_join(classes)}, which are treated as classes"
        cure = f"if {_join(repeated)} are the classes, use one folder: {select_folder(best)}"
        return (DataWarning(message, cure, "T13"),)
    if all(map(NUMBERED_PART.fullmatch, classes)) or _looks_numbered(stems):
        message = f"the folders {_join(classes)} look like numbered parts of a data set, but are treated as classes"
        return (DataWarning(message, "if they are not classes, move all images into one folder", "T13"),)
    return ()


def _split_of(name: str) -> str | None:
    """The split that a folder of this name holds: "train", "test", "val" or None."""
    word = name.lower()
    return SPLITS.get(word) or (SPLITS.get(word[:-1]) if word[-1:] in ("a", "b") else None)


def _splits_named(name: str) -> set[str]:
    """The splits that any word of a folder's name refers to."""
    splits = {_split_of(name), *(SPLITS.get(word) for word in re.findall("[a-z]+", name.lower()))}
    return {split for split in splits if split is not None}


def _are_splits(classes: list[str]) -> bool:
    """Whether two splits are named exactly, or every name contains a split's name (`train2017`, `seg_test`)."""
    exact = [_split_of(name) for name in classes]
    if len(set(exact) - {None}) > 1 or None not in exact:
        return True
    splits = [_splits_named(name) for name in classes]
    return all(splits) and len(set.union(*splits)) > 1


def _stems_by_folder(paths: list[list[str]]) -> dict[str, list[str]]:
    """The stems of the files in each top-level folder, sorted by the folders' names."""
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(path[0], []).append(posixpath.splitext(path[-1])[0])
    return dict(sorted(stems.items(), key=lambda pair: sort_key(pair[0])))


def _is_numbered(stems: dict[str, list[str]], min_width: int) -> bool:
    """Whether the folder names are zero-padded numbers of one width, and the folders about equally full."""
    folders = list(stems)
    same_width = len(folders) > 1 and {len(name) for name in folders} == {len(folders[0])}
    numbers = all(name.isascii() and name.isdigit() for name in folders) and any(name[0] == "0" for name in folders)
    sizes = [len(files) for files in stems.values()]
    return same_width and len(folders[0]) >= min_width and numbers and min(sizes[:-1]) >= MIN_FILL * max(sizes)


def _is_continuous(stems: dict[str, list[str]]) -> bool:
    """Whether the folders are numbered and the file numbering continues from one to the next."""
    if not _is_numbered(stems, min_width=3):
        return False
    last = -1
    for files in stems.values():
        numbers = [int(digits[-1]) if (digits := re.findall("[0-9]+", stem)) else -1 for stem in files]
        if min(numbers) <= last or len(set(numbers)) < len(numbers):
            return False
        last = max(numbers)
    return True


def _looks_numbered(stems: dict[str, list[str]]) -> bool:
    """Whether the folders are numbered and all file names differ, or the folders are prefixes of hashed file names."""
    all_stems = [stem for files in stems.values() for stem in files]
    are_prefixes = all(stem.startswith(folder) for folder, files in stems.items() for stem in files)
    hashed = len(stems) >= 16 and are_prefixes and all(re.fullmatch("[0-9a-f]{1,4}", folder) for folder in stems)
    return hashed or (_is_numbered(stems, min_width=2) and len(set(all_stems)) == len(all_stems) and not are_prefixes)


def _empty_folders(image_folders: Collection[str], folders: Collection[str], base: str) -> list[str]:
    """Folders without a usable image, beside the class folders or beside a folder that encloses these."""
    used = set(image_folders)
    for folder in image_folders:
        while folder := posixpath.dirname(folder):
            used.add(folder)
    enclosing = {""}
    while base:
        enclosing.add(base)
        base = posixpath.dirname(base)
    empty = (folder for folder in folders if folder not in used and posixpath.dirname(folder) in enclosing)
    return sorted(empty, key=sort_key)


def _is_integer(label: str) -> bool:
    return re.fullmatch("-?[0-9]+", label) is not None


def _join(names: Sequence[str]) -> str:
    """The names separated by commas; the first `MAX_NAMED` if there are more."""
    listed = ", ".join(map(_shorten, names[:MAX_NAMED]))
    return listed + (f", ... ({len(names):,} in all)" if len(names) > MAX_NAMED else "")


def _shorten(name: str) -> str:
    return display_name(name if len(name) <= 80 else f"...{name[-77:]}")
