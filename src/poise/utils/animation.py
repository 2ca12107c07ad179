"""Writing animations: a GIF with Pillow, which keeps its frames in memory, or an MP4, see `video.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from poise.utils.files import open_atomic
from poise.utils.image_grid import to_pil
from poise.utils.images import Bytes


def write_animation(frames: Iterable[Bytes], path: Path, milliseconds: float) -> tuple[int, int, int]:
    """Write frames of equal size, uint8, H x W x C, as an endless .gif, or as an .mp4.

    Args:
        frames: at least one.
        path: the file; its suffix chooses the format.
        milliseconds: the time of each frame; a .gif has multiples of 10.

    Returns:
        The number of frames, the width and the height in pixels.

    Raises:
        RecipeError: an .mp4 needs PyAV, and it is not installed.
        DiskError: the file can't be written.
    """
    if path.suffix.lower() == ".mp4":
        from poise.utils.video import write_video

        return write_video(path, frames, 1000 / milliseconds)
    first, *others = images = [to_pil(frame) for frame in frames]
    with open_atomic(path) as stream:
        first.save(stream, "gif", save_all=True, append_images=others, duration=round(milliseconds), loop=0)
    return len(images), first.width, first.height
