"""Parquet and arrow files as tables of columns, of which only what was used last is kept in memory. Needs pyarrow."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from poise.data.paths import access_error
from poise.data.shards import Shard
from poise.errors import RecipeError

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of an arrow stream. pyarrow takes a stream that is cut off between two batches for a whole one."""

PARQUET = b"PAR1"
"""The first bytes of a parquet file."""

MAX_OPEN = 4
"""The number of files that are open at a time, of all shards."""

MAX_GROUPS = 2
"""The number of row groups that are kept in memory, of all shards."""

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


class Table(ABC):
    """A file of columns, whose rows are stored in groups.

    Attributes:
        schema: the names and types of its columns, with metadata.
        count: the number of rows.
    """

    schema: Any
    count: int

    @abstractmethod
    def place(self, row: int) -> tuple[int, int]:
        """The group that a row is in, and its index there."""

    @abstractmethod
    def group(self, number: int, column: str) -> Any:
        """A column of a group."""

    @abstractmethod
    def whole(self, column: str) -> Any:
        """A column, all rows."""


class ArrowTable(Table):
    """An arrow file or stream, which is memory-mapped: an image is not read before it is needed.

    Raises:
        ValueError: it is damaged: cut off, or with places or lengths of values that lie outside of it.
    """

    def __init__(self, path: Path) -> None:
        arrow = import_pyarrow()
        source = arrow.memory_map(str(path))
        if source.read(6) == b"ARROW1":
            self._table = arrow.ipc.open_file(source).read_all()
        else:
            source.seek(max(0, source.size() - len(END_OF_STREAM)))
            if source.read() != END_OF_STREAM:
                raise ValueError("no end of the stream")
            source.seek(0)
            self._table = arrow.ipc.open_stream(source).read_all()
        self._table.validate(full=True)  # to read a value at a damaged offset would kill the process
        self.schema, self.count = self._table.schema, self._table.num_rows

    def place(self, row: int) -> tuple[int, int]:
        """See `Table.place`; all rows are one group, of which the system reads what is needed."""
        return 0, row

    def group(self, number: int, column: str) -> Any:
        """See `Table.group`."""
        return self._table.column(column)

    def whole(self, column: str) -> Any:
        """See `Table.whole`."""
        return self._table.column(column)


class ParquetTable(Table):
    """A parquet file, of which a row group is read at once."""

    def __init__(self, path: Path) -> None:
        import_pyarrow()
        self._file = importlib.import_module("pyarrow.parquet").ParquetFile(str(path), memory_map=True)
        self.schema, metadata = self._file.schema_arrow, self._file.metadata
        self.count = metadata.num_rows
        self._ends = list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))

    def place(self, row: int) -> tuple[int, int]:
        """See `Table.place`."""
        group = bisect_right(self._ends, row)
        return group, row - (self._ends[group - 1] if group else 0)

    def group(self, number: int, column: str) -> Any:
        """See `Table.group`."""
        return self._file.read_row_group(number, columns=[column]).column(0)

    def whole(self, column: str) -> Any:
        """See `Table.whole`."""
        return self._file.read(columns=[column]).column(0)


class Rows:
    """The rows of all shards, which are read nearly one after another, by several threads.

    Only the files and the row groups that were used last are kept: a set may have thousands of files, more than a
    process can open, and far more images than memory holds.

    Args:
        column: the name of the column of the images.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._tables: dict[Path, Table] = {}
        self._groups: dict[tuple[Path, int], Any] = {}
        self._lock = Lock()

    def value(self, shard: Shard, row: int) -> Any:
        """The image in a row of a shard, as stored: bytes, or a dictionary with `bytes` and `path`."""
        with self._lock:
            table = _recent(self._tables, shard.path, MAX_OPEN, partial(_table_at, shard.path))
            number, index = table.place(row)
            read = partial(table.group, number, self.column)
            values = _recent(self._groups, (shard.path, number), MAX_GROUPS, read)
        return values[index].as_py()


def _recent(kept: dict[Key, T], key: Key, most: int, make: Callable[[], T]) -> T:
    """What is kept under a key, or else is made, in place of what has not been used for longest if `most` are kept."""
    if key in kept:
        found = kept.pop(key)
    else:
        for old in list(kept)[: len(kept) - most + 1]:
            del kept[old]  # before the new one needs memory
        found = make()
    kept[key] = found
    return found


def import_pyarrow() -> Any:
    """The module pyarrow.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        cure = "install it with: pip install 'poise[parquet]'"
        what = "data of kind 'parquet' needs pyarrow, which is not installed"
        raise RecipeError(what, where="data.kind", cure=cure) from None


def _table_at(path: Path) -> Table:
    """The table in a file, whose format is that of its suffix or, under another name, that of its first bytes."""
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".arrow"):
        with path.open("rb") as file:
            suffix = ".parquet" if file.read(len(PARQUET)) == PARQUET else ".arrow"
    return ParquetTable(path) if suffix == ".parquet" else ArrowTable(path)


@contextmanager
def damage_in(shard: Shard) -> Iterator[None]:
    """A context in which pyarrow's errors are those of a shard.

    Raises:
        DataError: the shard is damaged, or of another format, or the system can't read it.
    """
    try:
        yield
    except MemoryError:
        raise
    except OSError as error:
        if error.errno is not None:  # pyarrow raises errors without a number for damage
            raise access_error(str(shard.path), OSError(error.errno, os.strerror(error.errno))) from None
        raise shard.damaged(str(error).rstrip(".")) from None
    except (ValueError, import_pyarrow().ArrowException) as error:
        raise shard.damaged(" ".join(str(error).split()).rstrip(".")) from None


def open_table(shard: Shard) -> Table:
    """The rows of a shard.

    Raises:
        DataError: it is damaged, or of another format, or can't be read.
        RecipeError: pyarrow is not installed.
    """
    import_pyarrow()
    with damage_in(shard):
        return _table_at(shard.path)
