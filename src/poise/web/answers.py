"""What routes answer with: strict JSON, images, bytes, and errors as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

from poise.core.metrics_log import NOT_FINITE


class Refused(Exception):
    """A request is answered with an error.

    Args:
        status: the status of the answer.
        text: what is wrong, without paths.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def json_answer(value: Any, status: int = 200) -> Response:
    """A value as JSON, in ASCII; numbers that are not finite become null."""
    return Response(encode(value), status, media_type="application/json")


def encode(value: Any) -> bytes:
    """A value as compact JSON, in ASCII; numbers that are not finite become null."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(without_nan(value), separators=(",", ":"), allow_nan=False)
    return text.encode()


def without_nan(value: Any) -> Any:
    """The value with null for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    return [without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def number(value: Any) -> Any:
    """A number as `encode_number` wrote it: null in place of "nan" and its like; anything else as it is."""
    return None if isinstance(value, str) and value in NOT_FINITE else value


def error_answer(status: int, text: str) -> Response:
    """An error as JSON."""
    return json_answer({"error": text}, status)


def check_png(content: bytes) -> bytes:
    """The content itself.

    Raises:
        Refused: it is not that of a PNG file.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise Refused(404, "there is no such image")
    return content
