"""Whether a folder or a file has images of two domains, and whether in pairs, from the names of folders and files.

`data/lookup.py` asks for it where `--data` gives no kind.
"""

from __future__ import annotations

import os
import posixpath
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from poise.data.listing import HIDDEN, display_name, ignored_reason
from poise.data.npz import array_shape
from poise.data.pairs import match_names
from poise.data.two_domains import DOMAINS, below, listing_at, split_and_domain, top_level
from poise.errors import Stopped
from poise.utils.printing import count_noun


class TwoDomainKind(NamedTuple):
    """The kind of data of two domains that something is taken for.

    Attributes:
        kind: `pairs` or `domains`.
        reason: why, as a clause.
        others: the other kinds of data that it can be read as.
    """

    kind: Literal["pairs", "domains"]
    reason: str
    others: tuple[str, ...] = ()


def two_domain_kind(path: Path) -> TwoDomainKind | None:
    """The kind of data of two domains that a folder or an npz file is; None for all others.

    An npz file with arrays `a` and `b`, and without `images`, is pairs if both have equally many images, and otherwise
    domains. A folder or a zip archive with exactly the sub-folders `a` and `b`, or `A` and `B`, is pairs if most files
    of the larger one have a partner of the same name (without suffix) in the other. One with `trainA` and `trainB`, and
    other splits of CycleGAN's sets, is domains. A folder that encloses everything is skipped.
    """
    try:
        if path.suffix.lower() == ".npz" and not path.is_dir():
            return _kind_of_npz(path)
        return _kind_of_files(path)
    except Stopped:
        raise
    except Exception:  # a damaged archive can raise anything; whoever loads it says what is wrong
        return None


def _kind_of_npz(path: Path) -> TwoDomainKind | None:
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        if "images" in names or not {"a", "b"} <= names:
            return None
        a, b = (array_shape(archive, name)[0] for name in ("a", "b"))
    if a == b:
        return TwoDomainKind("pairs", f"a and b have {count_noun(a, 'image')} each", ("domains",))
    return TwoDomainKind("domains", f"a has {count_noun(a, 'image')} and b {b:,}")


def _kind_of_files(path: Path) -> TwoDomainKind | None:
    """The kind of a folder or a zip archive, from the names in it alone."""
    if path.is_dir() and not _folders_to_train_on(_folders_in(path)):
        return None  # known without listing all of its files
    ordinary = "folder" if path.is_dir() else "zip"
    with listing_at(str(path), follow=False) as listing:
        base, names, has_images = top_level(listing)
        train = () if has_images else _folders_to_train_on(names)
        if not train:
            return None
        folders = [posixpath.join(base, name) for name in train]
        a, b = (below(listing, folder).items for folder in folders)
        shared, larger = len(match_names(a, b, folders).pairs), max(len(a), len(b))
    others = ("pairs", ordinary) if shared else (ordinary,)
    if len(names) > len(train) or [name.lower() for name in names] != [*DOMAINS]:
        return TwoDomainKind("domains", f"its folders are called {' and '.join(map(display_name, train))}", others)
    reason = f"{shared:,} of {larger:,} file names are in both of them"
    if 2 * shared > larger:
        return TwoDomainKind("pairs", reason, ("domains", ordinary))
    return TwoDomainKind("domains", reason, others)


def _folders_in(path: Path) -> list[str]:
    """The names of the sub-folders of a folder, or of that which encloses everything; none if there are images too."""
    folders = []
    with os.scandir(path) as entries:
        for entry in entries:
            reason = ignored_reason(entry.name)
            if reason != HIDDEN and entry.is_dir():
                folders.append(entry.name)
            elif reason is None:
                return []
    return _folders_in(path / folders[0]) if len(folders) == 1 else folders


def _folders_to_train_on(names: Sequence[str]) -> tuple[str, ...]:
    """The folders of a and of b among folders of which each is a domain, or a split of one; empty for all others."""
    roles = {split_and_domain(name): name for name in names}
    train = tuple(roles.get(("train", domain), "") for domain in DOMAINS)
    known = len(roles) == len(names) and all(split and domain for split, domain in roles)
    return train if known and all(train) else ()
