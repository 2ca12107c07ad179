"""Uploading a model repository to huggingface.co, through the library huggingface_hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from poise.errors import DiskError, RecipeError
from poise.utils.files import write_folder
from poise.utils.progress import bars_on_terminals_only
from poise.utils.system import disk_errors

HUB = "hf://"
"""The prefix that marks the name of a repository, as in huggingface_hub."""


class HubApi(Protocol):
    """The two functions of `huggingface_hub.HfApi` that are used."""

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        """Create a repository unless it exists."""

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, delete_patterns: list[str]) -> Any:
        """Upload all files of a folder in one commit, which deletes other files whose names match the patterns."""


def hub_api() -> HubApi:
    """The interface of huggingface_hub, which uses the token of `hf auth login`.

    Raises:
        RecipeError: the library is not installed.
    """
    try:
        return import_module("huggingface_hub").HfApi()
    except ImportError:
        cure = "install it: pip install 'poise[hub]', or name a folder: ./DIR"
        raise RecipeError("huggingface_hub is not installed", where="REPO_OR_DIR", cure=cure) from None


def upload_repository(contents: Mapping[str, bytes], target: str, api: HubApi, *, private: bool = False) -> str:
    """Upload the repository to huggingface.co, in one commit; the repository is created if it does not exist.

    A `generator.*` of an earlier upload that is not in `contents` is deleted, as it is not what the card describes.

    Args:
        contents: the content of each file by its name.
        target: `NAME`, `OWNER/NAME` or `hf://OWNER/NAME`.
        api: a `huggingface_hub.HfApi`.
        private: whether a new repository is private.

    Returns:
        Where it can be seen.

    Raises:
        DiskError: the upload has failed.
    """
    repo_id = target.removeprefix(HUB)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "repository"
        with disk_errors(folder):
            write_folder(folder, contents)
        try:
            created = api.create_repo(repo_id=repo_id, private=private or None, exist_ok=True)
            repo_id = getattr(created, "repo_id", repo_id)
            with bars_on_terminals_only():
                api.upload_folder(
                    repo_id=repo_id,
                    folder_path=str(folder),
                    commit_message="Upload a generator with poise push",
                    delete_patterns=["generator.*"],
                )
        except Exception as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            cure = "log in with `hf auth login`, and check the name and the connection"
            raise DiskError(f"the upload failed: {reason}", where=f"{HUB}{repo_id}", cure=cure) from error
    return f"https://huggingface.co/{repo_id}"


def check_repository_name(target: str) -> None:
    """Check the form of the name of a repository: `NAME` or `OWNER/NAME`.

    Raises:
        RecipeError: it can't be one.
    """
    part = r"[A-Za-z0-9][\w.-]{0,95}"
    if not re.fullmatch(rf"{part}(/{part})?", target.removeprefix(HUB), re.ASCII):
        cure = "write OWNER/NAME, or ./DIR for a folder"
        raise RecipeError("not the name of a repository", where="REPO_OR_DIR", found=f"'{target}'", cure=cure)
