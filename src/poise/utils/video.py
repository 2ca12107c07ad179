"""Writing videos: H.264 in an MP4 file that browsers play, encoded by FFmpeg through PyAV (the extra `video`).

Frames are encoded one by one, so memory does not grow with their number. The index of the file is moved to its
beginning, so that playing starts before the file has been loaded.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from poise.errors import DiskError, RecipeError
from poise.utils.batch_files import atomic_path
from poise.utils.images import Bytes

CODEC = "libx264"
OPTIONS = {"crf": "18", "preset": "medium"}
"""The quality of the encoder: 0 is lossless, 51 the worst; 18 is commonly taken as visually lossless."""

BT709, LIMITED_RANGE = 1, 1
"""FFmpeg's numbers for the colour space of HD video and for its range of values, which the file declares."""

WHITE = 255


def import_av() -> None:
    """Import PyAV. Called before the frames are generated, so that a missing PyAV is noticed before and not after it.

    Raises:
        RecipeError: it is not installed, or has no H.264 encoder.
    """
    try:
        codecs = importlib.import_module("av.codec").codecs_available
    except ImportError:
        cure = "install it with: pip install 'poise[video]'"
        raise RecipeError("an .mp4 needs PyAV, which is not installed", where="--out", cure=cure) from None
    if CODEC not in codecs:
        raise RecipeError("this build of PyAV has no H.264 encoder", where="--out", cure="write a .gif")


def video_frame(image: Bytes) -> Bytes:
    """An image, H x W x C, as a frame, H' x W' x 3: over white if it has alpha, and enlarged twice if a side is odd.

    Two pixels of a row, and two rows, share their colour in YUV 4:2:0, the only format that all browsers play.
    """
    if image.shape[2] in (2, 4):
        opacity = image[..., -1:].astype(np.float32) / 255
        image = (image[..., :-1] * opacity + WHITE * (1 - opacity)).round().astype(np.uint8)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = image.repeat(2, axis=0).repeat(2, axis=1)
    return np.ascontiguousarray(image)


def write_video(path: Path, frames: Iterable[Bytes], fps: float) -> tuple[int, int, int]:
    """Write frames of equal size, uint8, H x W x C, as an MP4 file, atomically.

    Args:
        path: the file.
        frames: at least one.
        fps: frames per second.

    Returns:
        The number of frames, the width and the height of the video in pixels.

    Raises:
        RecipeError: PyAV is not installed.
        DiskError: the file can't be written.
    """
    import_av()
    av = importlib.import_module("av")  # a static type checker need not have it

    remaining = iter(frames)
    first = video_frame(next(remaining))
    height, width = first.shape[:2]
    count = 0
    with atomic_path(path) as temporary:
        try:
            with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
                stream = container.add_stream(CODEC, rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                context = stream.codec_context
                context.colorspace, context.color_range = BT709, LIMITED_RANGE
                context.color_primaries = context.color_trc = BT709
                for image in itertools.chain([first], map(video_frame, remaining)):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    frame = frame.reformat(format="yuv420p", dst_colorspace=BT709)
                    container.mux(stream.encode(frame))
                    count += 1
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            raise DiskError(f"can't be written: {error.strerror or error}", where=str(path)) from None
    return count, width, height
