"""Which classes pictures have: by the folders they lie in, by a table beside them, or by numbers.

Everything here is told by names and numbers alone. What is decided is said in notes, and what is likely to be a
mistake (the parts of a data set taken for classes) in doubts, with the words that mend it.
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

LISTED = 8
"""Up to that many classes are named one by one."""

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
}
"""What the parts of a data set are called; `trainA` and `trainB` of two domains as well."""

SHELF = re.compile(
    r"(images?|imgs?|pictures|photos|part|shard|chunk|batch|split|fold|archive)[-_ .]?\d+", re.IGNORECASE
)
EVEN = 0.9
"""Shelves are as full as the fullest, up to this share; the last one need not be."""


class Classes(NamedTuple):
    """What was found.

    Attributes:
        labels: one for each picture, from 0 without a gap, or None where the pictures have no classes.
        names: of the classes, by number.
        notes: what was decided.
        warnings: what is likely not to be meant.
    """

    labels: Labels | None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[DataWarning, ...] = ()


class Container(NamedTuple):
    """What holds the folders.

    Attributes:
        inside: says how to name a folder in it as the data, for a cure.
        outer: how many folders around everything go without saying; an archive of a folder has one.
    """

    inside: Callable[[str], str]
    outer: int = 0


def summary(labels: Labels, names: Sequence[str]) -> str:
    """`3 classes: a, b, c; 120, 80, 4 pictures`, or shorter for many classes."""
    counts = np.bincount(labels, minlength=len(names)).tolist()
    least, most = min(counts), max(counts)
    each = (
        f"{most:,} picture{'' if most == 1 else 's'} each" if least == most else f"{least:,} to {most:,} pictures each"
    )
    if len(names) > LISTED:
        return f"{len(names):,} classes, {each}: {', '.join(names[:3])}, ..."
    told = each if least == most else f"{', '.join(f'{n:,}' for n in counts)} pictures"
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}: {', '.join(names)}; {told}"


def classes_by_folder(names: Sequence[str], folders: Collection[str], place: Container) -> Classes:
    """The first folders in which the names differ are classes, if no picture lies beside them.

    A folder around everything is passed. Numbered shelves are no classes: at least two folders whose names are numbers
    of one width of three digits or more, filled with zeros, about equally full, whose files count on from one to the
    next (00000/img00000000.png, 00001/img00001000.png).

    Args:
        names: of the usable pictures below the root, "/" between the parts.
        folders: all folders that there are, with or without pictures.
        place: what holds them.
    """
    inside = Counter(posixpath.dirname(name) for name in names)
    base = posixpath.commonpath(inside) if inside else ""
    depth = len(base.split("/")) if base else 0
    empty = _without(inside, folders, base)
    notes = [f"{count_noun(len(empty), 'folder')} without a usable picture: {_some(empty)}"] if empty else []
    parts = [name.split("/")[depth:] for name in names]
    tops = [inner[0] if len(inner) > 1 else None for inner in parts]
    kinds = sorted({top for top in tops if top is not None}, key=sort_key)
    if not kinds:
        around = (
            [f"all pictures are in one folder, {_short(base)}: they have no classes"] if depth > place.outer else []
        )
        return Classes(None, (), (*around, *notes))
    if None in tops:
        top = count_noun(tops.count(None), "picture")
        others = f"{top} at the top and others in {count_noun(len(kinds), 'folder')}"
        return Classes(None, (), (f"{others}: the folders are not taken as classes", *notes))
    if depth > place.outer:
        notes.insert(0, f"all pictures are below {_short(base)}: the folders in it are taken as classes")
    if _running(shelves := _by_top(parts)):
        told = f"the folders {kinds[0]} to {kinds[-1]} are numbered shelves, whose files count on from one to the next"
        return Classes(None, (), (f"{told}: they are not taken as classes",))
    number = {kind: i for i, kind in enumerate(kinds)}
    labels = np.array([number[top] for top in tops if top is not None], np.int64)
    shown_names = tuple(map(display_name, kinds))
    doubts = _doubts(kinds, parts, shelves, lambda top: place.inside(posixpath.join(base, top)))
    return Classes(labels, shown_names, (summary(labels, shown_names), *notes), doubts)


def classes_by_table(names: Sequence[str], table: dict[str, str] | None, root: str = "") -> Classes:
    """The classes that StyleGAN's `dataset.json` gives; its shelves are none.

    Args:
        names: of the usable pictures below the root.
        table: the label of each name below `root`, or None where the file says that there are no labels.
        root: the folder that the file is in.
    """
    if table is None:
        return Classes(None, (), ("dataset.json says that there are no labels: the folders are not taken as classes",))
    found = [table.get(posixpath.relpath(name, root) if root else name) for name in names]
    if missing := found.count(None):
        of = count_noun(len(names), "picture")
        message = f"dataset.json has no label for {missing:,} of {of}: none of its labels is used"
        return Classes(None, (), (), (DataWarning(message, "give each picture one, or remove the file", "T13"),))
    whole = [label for label in found if label is not None]
    kinds = sorted(set(whole), key=lambda label: (not _number(label), int(label) if _number(label) else 0, label))
    number = {kind: i for i, kind in enumerate(kinds)}
    labels = np.array([number[label] for label in whole], np.int64)
    shown_names = tuple(map(display_name, kinds))
    return Classes(labels, shown_names, (f"by dataset.json: {summary(labels, shown_names)}",))


def classes_by_number(found: npt.NDArray[Any], names: Sequence[str] | None = None) -> Classes:
    """Every number that occurs is a class, called by `names` or by itself; what has no picture is none.

    Args:
        found: whole numbers, of any size and sign; with `names` from 0 to len(names) - 1.
        names: what the numbers mean, where that is known.
    """
    kinds, dense = np.unique(found, return_inverse=True)
    labels = dense.reshape(-1).astype(np.int64)
    told = tuple(str(int(kind)) if names is None else display_name(str(names[int(kind)])) for kind in kinds)
    notes = [summary(labels, told)] if len(told) else []
    if names is not None and len(told) < len(names):
        gone = sorted(set(range(len(names))) - {int(kind) for kind in kinds})
        notes.append(f"classes without a picture are left out: {_some([display_name(str(names[i])) for i in gone])}")
    elif names is None and len(kinds) and int(kinds[-1]) != len(kinds) - 1:
        there = {int(kind) for kind in kinds}
        gap = next(number for number in count(min(0, *there)) if number not in there)
        empty = f", and a number without a picture, as {gap}, is no class" if gap < max(there) else ""
        notes.append(f"the classes are called by their labels{empty}")
    return Classes(labels, told, tuple(notes))


def _doubts(
    kinds: list[str], parts: list[list[str]], shelves: dict[str, list[str]], inside: Callable[[str], str]
) -> tuple[DataWarning, ...]:
    """Folders that were taken as classes and look like something else."""
    below: dict[str, set[str]] = {kind: set() for kind in kinds}
    for inner in parts:
        if len(inner) > 2:
            below[inner[0]].add(inner[1])
    met = Counter(name for names in below.values() for name in names if name.lower() not in PARTS)
    again = sorted((name for name, n in met.items() if n >= 2 and 2 * n > len(kinds)), key=sort_key)
    first = min(kinds, key=lambda kind: ("train" not in _parts(kind), len(below[kind]) < len(again), sort_key(kind)))
    if _are_parts(kinds):
        repeated = f"; {_some(again)} repeat below them" if again else ""
        message = f"the folders {_some(kinds)} look like splits of a data set, and are taken as classes{repeated}"
        return (DataWarning(message, f"give one of them: {inside(first)}", "T13"),)
    if len(again) > 1:
        message = f"the folders {_some(again)} repeat below {_some(kinds)}, which are taken as classes: one level off?"
        return (DataWarning(message, f"if {_some(again)} are the classes, give one folder: {inside(first)}", "T13"),)
    if all(map(SHELF.fullmatch, kinds)) or _maybe_shelves(shelves):
        message = f"the folders {_some(kinds)} look like numbered shelves, and are taken as classes"
        return (DataWarning(message, "if they are no classes, put all pictures into one folder", "T13"),)
    return ()


def _part(name: str) -> str | None:
    """Which part of a data set a folder of this name is: "train", "test", "val", or none."""
    word = name.lower()
    return PARTS.get(word) or (PARTS.get(word[:-1]) if word[-1:] in ("a", "b") else None)


def _parts(name: str) -> set[str]:
    """The parts that a folder's name speaks of, in any of its words."""
    words = {_part(name), *(PARTS.get(word) for word in re.findall("[a-z]+", name.lower()))}
    return {word for word in words if word is not None}


def _are_parts(kinds: list[str]) -> bool:
    """Two parts by their plain names, or nothing but names with such words in them (`train2017`, `seg_test`)."""
    exact = [_part(kind) for kind in kinds]
    if len(set(exact) - {None}) > 1 or None not in exact:
        return True
    words = [_parts(kind) for kind in kinds]
    return all(words) and len(set.union(*words)) > 1


def _by_top(parts: list[list[str]]) -> dict[str, list[str]]:
    """The stems in each folder, in the order of the folders' names."""
    stems: dict[str, list[str]] = {}
    for inner in parts:
        stems.setdefault(inner[0], []).append(posixpath.splitext(inner[-1])[0])
    return dict(sorted(stems.items(), key=lambda pair: sort_key(pair[0])))


def _numbered(shelves: dict[str, list[str]], width: int) -> bool:
    """Whether the names are numbers of one width, filled with zeros, and the folders about equally full."""
    tops = list(shelves)
    same = len(tops) > 1 and {len(top) for top in tops} == {len(tops[0])} and len(tops[0]) >= width
    sizes = [len(stems) for stems in shelves.values()]
    filled = all(top.isascii() and top.isdigit() for top in tops) and any(top.startswith("0") for top in tops)
    return same and filled and min(sizes[:-1]) >= EVEN * max(sizes)


def _running(shelves: dict[str, list[str]]) -> bool:
    """Whether the files of numbered shelves count on from one to the next."""
    if not _numbered(shelves, width=3):
        return False
    last = -1
    for stems in shelves.values():
        numbers = [int(found[-1]) if (found := re.findall("[0-9]+", stem)) else -1 for stem in stems]
        if min(numbers) <= last or len(set(numbers)) < len(numbers):
            return False
        last = max(numbers)
    return True


def _maybe_shelves(shelves: dict[str, list[str]]) -> bool:
    """Whether the folders are numbered and no file name comes twice, or are the first letters of file names."""
    stems = [stem for held in shelves.values() for stem in held]
    begin = all(stem.startswith(top) for top, held in shelves.items() for stem in held)
    hashed = len(shelves) >= 16 and begin and all(re.fullmatch("[0-9a-f]{1,4}", top) for top in shelves)
    return hashed or (_numbered(shelves, width=2) and len(set(stems)) == len(stems) and not begin)


def _without(inside: Collection[str], folders: Collection[str], base: str) -> list[str]:
    """Folders beside the classes, or beside a folder around them, that have no usable picture in them."""
    holding = set(inside)
    for folder in inside:
        while folder := posixpath.dirname(folder):
            holding.add(folder)
    around = {""}
    while base:
        around.add(base)
        base = posixpath.dirname(base)
    gone = (folder for folder in folders if folder not in holding and posixpath.dirname(folder) in around)
    return sorted(gone, key=sort_key)


def _number(label: str) -> bool:
    return re.fullmatch("-?[0-9]+", label) is not None


def _some(names: Sequence[str]) -> str:
    told = ", ".join(map(_short, names[:LISTED]))
    return told + (f", ... ({len(names):,} in all)" if len(names) > LISTED else "")


def _short(name: str) -> str:
    return display_name(name if len(name) <= 80 else f"...{name[-77:]}")
