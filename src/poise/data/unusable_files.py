"""What the user is told of files and folders that can't be used, and when they are too many.

The reason of each is found where it is read (`scan`, `listing`, `unread_formats`); here they are counted, named and
given a cure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from poise.data.listing import LINK_OUT
from poise.data.paths import WHERE
from poise.data.source import BadFile, DataWarning, SkippedFolder, UnusableFilesError
from poise.utils.printing import agree, count_noun

MAX_FOLDERS = 8
"""The largest number of skipped folders that a message names."""


def without_folders(bad: Sequence[BadFile]) -> list[BadFile]:
    """The files among what can't be used."""
    return [one for one in bad if not isinstance(one, SkippedFolder)]


def count_unusable(bad: Sequence[BadFile]) -> str:
    """The number of bad files in words, and that of skipped folders; empty if there are none."""
    files = without_folders(bad)
    folders = len(bad) - len(files)
    counts = [count_noun(len(files), "bad image file")] * bool(files)
    return " and ".join([*counts, *[count_noun(folders, "skipped folder")] * bool(folders)])


def folder_warning(bad: Sequence[BadFile]) -> list[DataWarning]:
    """A warning about the folders that are skipped, because all their images are lost; none without any."""
    folders = [one for one in bad if isinstance(one, SkippedFolder)]
    if not folders:
        return []
    lost = agree(len(folders), "is skipped with all that is in it", "are skipped with all that is in them")
    message = f"{count_noun(len(folders), 'folder')} {lost}: {_named(folders)}"
    return [DataWarning(message, _cure(folders, agree(len(folders), "it", "them")), "")]


def check_bad(bad: Sequence[BadFile], num_good: int, max_bad: float) -> None:
    """Refuse data of which too little can be used.

    Args:
        bad: what can't be used. Folders don't count, as nobody knows how many images are in them.
        num_good: the number of files that can be used.
        max_bad: the largest fraction of bad files.

    Raises:
        UnusableFilesError: more than the fraction `max_bad` of the files is bad, or all that is there is skipped
            folders.
    """
    files = without_folders(bad)
    total = len(files) + num_good
    if len(files) > max_bad * total:
        examples = ", ".join(f"{file.name} ({file.reason})" for file in files[:3]) + ", ..." * (len(files) > 3)
        what = f"{len(files):,} of {count_noun(total, 'image file')} can't be used: {examples}"
        other = f", or raise data.max_bad, which is {max_bad:g}"
        raise UnusableFilesError(what, bad, where=WHERE, cure=_cure(files, "them") + other * (not _are_links(files)))
    if bad and not total:
        raise skipped_error("there are no images outside of skipped folders", bad)


def skipped_error(what: str, folders: Sequence[BadFile]) -> UnusableFilesError:
    """The error that `what` is wrong because of these folders, which are skipped."""
    found = f"{count_noun(len(folders), 'skipped folder')}: {_named(folders)}"
    return UnusableFilesError(
        what, folders, where=WHERE, found=found, cure=_cure(folders, agree(len(folders), "it", "them"))
    )


def _named(folders: Sequence[BadFile]) -> str:
    """The first folders with their reasons; a reason that successive ones share is given once."""
    groups = groupby(folders[:MAX_FOLDERS], lambda one: one.reason)
    texts = [f"{', '.join(one.name for one in found)} ({reason})" for reason, found in groups]
    return ", ".join(texts) + ", ..." * (len(folders) > MAX_FOLDERS)


def _are_links(bad: Sequence[BadFile]) -> bool:
    """Whether at least half of them would be usable if links were followed."""
    return 2 * sum(one.reason == LINK_OUT for one in bad) >= len(bad)


def _cure(bad: Sequence[BadFile], them: str) -> str:
    """How to make use of them."""
    if _are_links(bad):
        links = sum(one.reason == LINK_OUT for one in bad)
        return f"set data.follow_links=true to follow the {agree(links, 'link', 'links')} out of the folder"
    if all(one.reason.startswith("unreadable") for one in bad):
        return f"make {them} readable, or remove {them}"
    return f"repair or remove {them}"
