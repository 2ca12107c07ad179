"""`parquet`: images in columns of parquet or arrow files, as the library `datasets` of Hugging Face stores them.

A set from the Hub has the files `data/train-00000-of-00004.parquet` and so on, one that was written by
`Dataset.save_to_disk` has `data-00000-of-00001.arrow`. An image is a struct with the field `bytes`, or binary; the
names of classes are in the metadata under the key `huggingface`. Needs pyarrow, which reads both formats.
Source of the layout: https://huggingface.co/docs/datasets, "Share a dataset" and "Dataset features".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any, ClassVar, Literal

from poise.data.decode import UnusableImage
from poise.data.listing import Item, Listing, display_name
from poise.data.parquet_tables import Rows, Table, damage_in, import_pyarrow, open_table
from poise.data.shards import IMAGES, Shard, ShardsConfig
from poise.data.source import BadFile
from poise.errors import DataError
from poise.utils.printing import count_noun

LABELS = ("label", "labels", "class", "cls", "target", "class_name", "fine_label")
"""The names by which the column of the labels is found without `label`; the first one that exists."""


class ParquetConfig(ShardsConfig):
    """Parquet or arrow files. `image` and `label` name the columns; without them they are found by type and name."""

    kind: Literal["parquet"] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".arrow")

    def list_images(self, shards: Sequence[Shard]) -> tuple[Listing, list[str]]:
        """See `ShardsConfig.list_images`.

        Raises:
            DataError: a file is damaged, or a column is missing, ambiguous or of another type.
            RecipeError: pyarrow is not installed.
        """
        first = open_table(shards[0])
        image = _image_column(first.schema, self.image, shards[0])
        label = _label_column(first.schema, self.label, shards[0])
        names, order, rows = list[str](), dict[str, None](), Rows(image)
        listing, labels = Listing(labels={}), list[str | None]()
        for shard in shards:
            table = first if shard is shards[0] else open_table(shard)
            if shard is not shards[0]:
                _image_column(table.schema, image, shard)
                _label_column(table.schema, label, shard)
            names = _class_names(table.schema).get(label or "", names)  # each shard may have them in another order
            order |= dict.fromkeys(names)
            for row in range(table.count):
                name = f"{shard.prefix}{row:06d}"
                listing.items.append(Item(name, partial(_read, rows, shard, row)))
            labels += _words(table, shard, label, names) if label else [None] * table.count
        listing.class_order = list(order)
        _attach(listing, labels)
        unused = [name for name in first.schema.names if name not in (image, label)]
        of_labels = f", the labels the column {display_name(label)}" if label and listing.labels else ""
        if label and not listing.labels:
            of_labels = f"; the column {display_name(label)} has no label that can be used"
        others = f"; not used: {', '.join(map(display_name, unused[:8]))}" if unused else ""
        return listing, [f"the images are the column {display_name(image)}{of_labels}{others}"]


def _words(table: Table, shard: Shard, column: str, names: Sequence[str]) -> list[str | None]:
    """The labels in a column; None for a label that is missing, or is a number but no index of `names`, if any.

    Raises:
        DataError: the shard is damaged.
    """

    def word(value: Any) -> str | None:
        if value is None or (names and not isinstance(value, str) and not 0 <= value < len(names)):
            return None
        return sys.intern(str(value)) if isinstance(value, str) or not names else names[value]

    with damage_in(shard):
        words = [word(value) for value in table.whole(column).to_pylist()]
        if len(words) != table.count:
            raise ValueError(f"{count_noun(len(words), 'label')} in {count_noun(table.count, 'row')}")
        return words


def _read(rows: Rows, shard: Shard, row: int) -> BytesIO:
    """The encoded image in a row.

    Raises:
        UnusableImage: there is none.
    """
    value = rows.value(shard, row)
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if content is None:
        raise UnusableImage(f"no image, only the path {display_name(str(path))}" if path else "no image in this row")
    return BytesIO(content)


def _holds_images(kind: Any) -> bool:
    """Whether a column of this type may hold encoded images."""
    types = import_pyarrow().types
    if types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_labels(kind: Any) -> bool:
    types = import_pyarrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(kind) or types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)


def _found(schema: Any) -> str:
    """The columns with their types, for a message."""
    return (
        ", ".join(f"{display_name(field.name)} ({str(field.type)[:40]})" for field in list(schema)[:12]) or "no columns"
    )


def _image_column(schema: Any, wanted: str | None, shard: Shard) -> str:
    """The name of the column with the images: the given one, one of a known name, or the only one of a fitting type."""
    where, cure = f"data.image: {display_name(shard.path.name)}", 'name the column of the images: data.image="..."'
    candidates = [field.name for field in schema if _holds_images(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise DataError(f"there is no column '{wanted}'", where=where, found=_found(schema), cure=cure)
        if wanted not in candidates:
            cure = "store each image as the bytes of a PNG or JPEG"
            raise DataError(
                f"the column '{wanted}' has no encoded images", where=where, found=_found(schema), cure=cure
            )
        return wanted
    known = [name for name in IMAGES if name in candidates]
    if not candidates:
        cure = "store each image as the bytes of a PNG or JPEG, as the feature Image of datasets does"
        raise DataError("no column has encoded images", where=where, found=_found(schema), cure=cure)
    if len(candidates) > 1 and not known:
        raise DataError("several columns may be the images", where=where, found=", ".join(candidates), cure=cure)
    return known[0] if known else candidates[0]


def _label_column(schema: Any, wanted: str | None, shard: Shard) -> str | None:
    """The name of the column with the labels: the given one, one of a known name, or the only one with class names."""
    usable = [field.name for field in schema if _holds_labels(field.type)]
    if wanted is not None and wanted not in usable:
        what = f"the column '{wanted}' has no labels" if wanted in schema.names else f"there is no column '{wanted}'"
        cure = "name a column of integers or strings"
        where = f"data.label: {display_name(shard.path.name)}"
        raise DataError(what, where=where, found=_found(schema), cure=cure)
    with_names = [name for name in _class_names(schema) if name in usable]
    candidates = [*(name for name in LABELS if name in usable), *(with_names if len(with_names) == 1 else [])]
    return wanted or next(iter(candidates), None)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of the classes by column, from the metadata that `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {column: [str(name) for name in names] for column, names in found.items() if isinstance(names, list)}


def _attach(listing: Listing, labels: Sequence[str | None]) -> None:
    """Give each image its label; images without one are bad, unless none has a label."""
    if all(label is None for label in labels):
        listing.labels = None
        return
    items, listing.items, listing.labels = listing.items, [], {}
    for item, label in zip(items, labels, strict=True):
        if label is None:
            listing.bad_files.append(BadFile(display_name(item.name), "no label in this row"))
        else:
            listing.items.append(item)
            listing.labels[item.name] = label
