"""`dataset.json`, the table of labels that StyleGAN's `dataset_tool.py` puts beside its numbered shelves.

`{"labels": [["00000/img00000000.png", 6], ...]}`, or `{"labels": null}` where there are none.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from typing import Any

from poise.data.classes import Classes, Container, classes_by_folder, classes_by_table
from poise.data.listing import Item, Listing
from poise.data.source import DataWarning

LARGEST = 2**28
"""Bytes of a table that are read."""

CURE = 'it should hold {"labels": [["00000/img00000000.png", 6], ...]} or {"labels": null}'


def classes_of(names: Sequence[str], listing: Listing, place: Container) -> Classes:
    """The classes of the usable pictures `names`: by the table beside them if there is one, else by their folders."""
    doubts: list[DataWarning] = []
    for item in listing.tables:
        root = posixpath.dirname(item.name)
        if root and not all(name.startswith(f"{root}/") for name in names):
            listing.ignored[".json"] += 1
            continue
        try:
            table = read_table(item)
        except ValueError as error:
            doubts.append(
                DataWarning(f"{item.name} can't be used, and the folders are looked at: {error}", CURE, "T13")
            )
            continue
        return classes_by_table(names, table, root)
    found = classes_by_folder(names, listing.folders, place)
    return found._replace(warnings=(*doubts, *found.warnings))


def read_table(item: Item) -> dict[str, str] | None:
    """The label of each picture by its name, as a word; None where the file says that there are none.

    Raises:
        ValueError: it can't be read, or holds something else.
    """
    try:
        with item.open() as stream:
            raw = stream.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        told = json.loads(raw)
    except (OSError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    except ValueError as error:
        raise ValueError(f"no valid JSON: {error}") from None
    if not isinstance(told, dict) or "labels" not in told:
        raise ValueError("it has no 'labels'")
    labels = told["labels"]
    if labels is None:
        return None
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("its 'labels' are not pairs of a name and a label")
    return {str(name).replace("\\", "/"): _word(label) for name, label in pairs}


def _word(label: Any) -> str:
    """A label as a class's name: a number, a word, or the place of the 1 in a one-hot list."""
    if isinstance(label, list) and sorted(label) == [0] * (len(label) - 1) + [1]:
        return str(label.index(1))
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    if isinstance(label, str | int) and not isinstance(label, bool):
        return str(label)
    raise ValueError(f"a label is {json.dumps(label)[:60]}, which is no class")
