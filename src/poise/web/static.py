"""The built front end: a fixed table of files, read once from the package."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from poise.web.answers import Refused

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""The content type of each kind of file that the build makes; others are not served."""

PAGE = "index.html"


class Asset(NamedTuple):
    """A built file: its content, type and entity tag."""

    content: bytes
    type: str
    tag: str


def load_assets() -> dict[str, Asset]:
    """The built files by name; empty if the page has not been built."""
    folder = files("poise.web") / "static"
    assets = {}
    for place in (folder, folder / "assets"):
        for file in place.iterdir() if place.is_dir() else ():
            kind = TYPES.get(file.name.rpartition(".")[2])
            if kind is not None and file.is_file():
                content = file.read_bytes()
                assets[file.name] = Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return assets


def asset_answer(assets: dict[str, Asset], name: str, request: Request) -> Response:
    """A built file, or 304 if the browser has this version.

    Raises:
        Refused: there is no such file.
    """
    asset = assets.get(name)
    if asset is None:
        missing = "the page has not been built; in a checkout, run npm ci and npm run build in web/"
        raise Refused(503, missing) if name == PAGE else Refused(404, "there is nothing at this address")
    headers = {"etag": asset.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == asset.tag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.type)
