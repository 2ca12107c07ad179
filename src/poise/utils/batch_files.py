"""Files that are written atomically by the hundred, or by libraries that open files by name. See `files.py`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from poise.utils.files import sync_file, sync_folder, synced_stream
from poise.utils.system import disk_errors, retry_interrupted, system
from poise.utils.temporary import remove_leftovers, temporary_name


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write many files, each of them atomically, into existing folders: faster than one by one, as each folder is
    synced once and not searched for leftovers, which is left to the caller (`remove_orphans`).

    Args:
        contents: the content of each file by its path.

    Raises:
        DiskError: a file can't be written. Each file has either its new content or the old one.
    """
    temporaries = {path.with_name(temporary_name(path.name)): path for path in contents}
    with disk_errors(next(iter(contents), Path())):
        try:
            for temporary, path in temporaries.items():
                with synced_stream(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as stream:
                    stream.write(contents[path])
            for temporary, path in temporaries.items():
                retry_interrupted(lambda old=temporary, new=path: system.replace(old, new))  # type: ignore[misc]
        except BaseException:
            for temporary in temporaries:
                with suppress(OSError):
                    system.unlink(temporary)
            raise
        for folder in dict.fromkeys(path.parent for path in contents):
            sync_folder(folder)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a library that writes files by name. When the block ends without an error, the
    file is synced and renamed to `path`.

    Raises:
        DiskError: the file can't be written; the old version stays.
    """
    with disk_errors(path):
        target = path.resolve() if path.is_symlink() else path
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        remove_leftovers(target.parent, target.name)
        temporary = target.with_name(temporary_name(target.name))
        try:
            yield temporary
            sync_file(temporary)
            retry_interrupted(lambda: system.replace(temporary, target))
        except BaseException:
            with suppress(OSError):
                system.unlink(temporary)
            raise
        sync_folder(target.parent)
