"""`dataset.json`, the label file that StyleGAN's `dataset_tool.py` writes beside its numbered folders.

`{"labels": [["00000/img00000000.png", 6], ...]}`, or `{"labels": null}` if there are no labels.
"""

from __future__ import annotations

import json
import posixpath
import zlib
from collections.abc import Sequence
from typing import Any
from zipfile import BadZipFile

from poise.data.classes import Classes, Container, classes_by_folder, classes_by_label, classes_by_table
from poise.data.listing import Item, Listing
from poise.data.source import DataWarning

MAX_BYTES = 2**28
"""The largest label file that is read."""

CURE = 'it should hold {"labels": [["00000/img00000000.png", 6], ...]} or {"labels": null}'


def find_classes(names: Sequence[str], listing: Listing, container: Container) -> Classes:
    """The classes of the usable images `names`: from a `dataset.json` beside them if there is one, else by folder.

    Those of shards are their labels, if they have any.
    """
    if listing.labels is not None:
        return classes_by_label([listing.labels[name] for name in names], listing.class_order)
    warnings: list[DataWarning] = []
    for item in listing.label_files:
        root = posixpath.dirname(item.name)
        if root and not all(name.startswith(f"{root}/") for name in names):
            listing.ignored[".json"] += 1
            continue
        try:
            table = read_table(item)
        except ValueError as error:
            message = f"{item.name} can't be used, so the classes are found by folder: {error}"
            warnings.append(DataWarning(message, CURE, "T13"))
            continue
        return classes_by_table(names, table, root)
    classes = classes_by_folder(names, listing.folders, container)
    return classes._replace(warnings=(*warnings, *classes.warnings))


def read_table(item: Item) -> dict[str, str] | None:
    """The class name of each file; None if the label file states that there are no labels.

    Raises:
        ValueError: the file cannot be read, or has another format.
    """
    try:
        with item.open() as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        content = json.loads(raw)
    except (OSError, RecursionError, RuntimeError, BadZipFile, zlib.error) as error:  # the last ones in an archive
        raise ValueError(str(error) or type(error).__name__) from None
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None
    if not isinstance(content, dict) or "labels" not in content:
        raise ValueError("it has no 'labels'")
    labels = content["labels"]
    if labels is None:
        return None
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("its 'labels' are not pairs of a file name and a label")
    return {str(name).replace("\\", "/"): class_name(label) for name, label in pairs}


def class_name(label: Any) -> str:
    """The name of a label's class: a number, a word, or the index of the 1 in a one-hot list.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        return str(label.index(1))
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    if isinstance(label, str | int) and not isinstance(label, bool):
        return str(label)
    raise ValueError(f"a label is {json.dumps(label)[:60]}, which is not a class")
