"""What this process does to files and processes while a test watches, by an audit hook."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READS = ("open", "os.listdir", "os.scandir")
CHANGES = (
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename",
    "os.rmdir", "os.symlink", "os.system", "os.truncate", "os.utime", "shutil.rmtree", "subprocess.Popen",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Audit:
    """Collects what is opened and changed while it is active; an audit hook can't be removed."""

    active: Audit | None = None

    def __init__(self) -> None:
        self.opened: list[object] = []
        self.changes: list[tuple[str, tuple[object, ...]]] = []

    @staticmethod
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        self = Audit.active
        if self is None:
            return
        if event in READS:
            self.opened.append(arguments[0])
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            self.changes.append((event, arguments))

    def outside(self, root: Path) -> list[str]:
        """What was opened that is neither below `root` nor a part of Python or of poise."""
        names = [os.fsdecode(path) for path in self.opened if not isinstance(path, int)]  # type: ignore[arg-type]
        return [name for name in names if not self._is_allowed(name, root)]

    def _is_allowed(self, name: str, root: Path) -> bool:
        relative = "/" not in name and name != ".."  # opened relative to a folder
        library = "site-packages" in name or name.startswith((sys.base_prefix, "/dev/")) or "/src/poise/" in name
        return relative or library or Path(name).is_relative_to(root)


@contextmanager
def audited() -> Iterator[Audit]:
    """Watch this process, all of its threads, in this block."""
    if Audit.hook not in getattr(sys, "_poise_hooks", []):
        sys.addaudithook(Audit.hook)
        sys._poise_hooks = [Audit.hook]  # type: ignore[attr-defined]
    Audit.active = Audit()
    try:
        yield Audit.active
    finally:
        Audit.active = None
