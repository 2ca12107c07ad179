"""Decoding of an image: colours, bit depth, alpha, orientation and size."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_helpers import chunk, png, profile, tiff
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from poise.data.decode import Header, Trait, decode_image, read_header, strict_pillow
from poise.data.fit import TargetFormat, convert_array, fit_image


def decode(raw: bytes, size: int, channels: int, background: str = "white") -> tuple[np.ndarray, set[Trait]]:
    with strict_pillow():
        return decode_image(io.BytesIO(raw), TargetFormat((size, size), channels, background))  # type: ignore[arg-type]


def encode(im: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    im.save(out, kind, **options)
    return out.getvalue()


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
IMAGES_16_BIT = {
    "png": encode(Image.fromarray(RAMP)),
    "tiff": encode(Image.fromarray(RAMP), "TIFF"),
    "tiff-big-endian": encode(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "tiff-lzw": encode(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"),
    "tiff-white-is-zero": tiff(256, 256, (65535 - RAMP).astype("<u2").tobytes(), 16, 0),
}


@pytest.mark.parametrize("raw", IMAGES_16_BIT.values(), ids=[f"I09-16bit-grey-{name}" for name in IMAGES_16_BIT])
def test_16_bit_grey_keeps_256_levels(raw: bytes) -> None:
    with strict_pillow():
        assert read_header(io.BytesIO(raw)).grey
    pixels, traits = decode(raw, 256, 1)
    assert len(np.unique(pixels)) == 256
    assert np.array_equal(pixels[..., 0], RAMP >> 8)
    assert Trait.SIXTEEN_BIT in traits


def test_12_bit_tiff() -> None:
    values = np.arange(4096).reshape(64, 64)
    even_pixels, odd_pixels = values.reshape(-1)[0::2], values.reshape(-1)[1::2]
    packed = np.stack((even_pixels >> 4, ((even_pixels & 15) << 4) | (odd_pixels >> 8), odd_pixels & 255), 1).astype(
        np.uint8
    )
    pixels, _ = decode(tiff(64, 64, packed.tobytes(), 12, 1), 64, 1)
    assert np.array_equal(pixels[..., 0], values >> 4)


def test_16_bit_transparency_is_alpha() -> None:
    raw = png(4, 4, chunk(b"tRNS", b"\0\0"), depth=16)
    assert decode(raw, 4, 1, "white")[0].min() == 255
    pixels, traits = decode(raw, 4, 2)
    assert pixels[..., 1].max() == 0
    assert Trait.ALPHA in traits


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "opaque"),
    [
        (1, 0, b"\x50", b"\0\1", [255, 0, 255, 0]),
        (2, 0, b"\x1b", b"\0\3", [255, 255, 255, 0]),
        (4, 0, b"\x05\xaf", b"\0\5", [255, 0, 255, 255]),
        (8, 0, bytes([0, 85, 170, 255]), b"\0\xaa", [255, 255, 0, 255]),
        (16, 0, bytes([0, 0, 1, 0, 2, 0, 3, 0]), b"\2\0", [255, 255, 0, 255]),
        (8, 2, bytes(range(12)), bytes([0, 3, 0, 4, 0, 5]), [255, 0, 255, 255]),
        (16, 2, bytes(range(24)), bytes(range(6, 12)), [255, 0, 255, 255]),
    ],
)
def test_the_transparent_value_of_a_png(
    depth: int, colour: int, row: bytes, transparent: bytes, opaque: list[int]
) -> None:
    """Four pixels, of which the one with this value is transparent."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, depth, colour, 0, 0, 0))
    data = chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    raw = b"\x89PNG\r\n\x1a\n" + header + data
    with strict_pillow():
        pixels, _ = decode_image(io.BytesIO(raw), TargetFormat((1, 4), 4, "white"))
    assert pixels[0, :, 3].tolist() == opaque


COLOURS = ((0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 100, 0), (10, 20, 30, 128), (0, 0, 0, 255))


@pytest.mark.parametrize(
    "kind", [pytest.param("JPEG", id="I11-adobe-inverted-jpeg"), pytest.param("TIFF", id="I11-tiff")]
)
@pytest.mark.parametrize("colour", COLOURS)
def test_cmyk_patches(colour: tuple[int, ...], kind: str) -> None:
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    pixels, _ = decode(encode(Image.new("CMYK", (16, 16), colour), kind, **options), 8, 3)
    expected = [(255 - channel) * (255 - colour[3]) / 255 for channel in colour[:3]]
    assert np.abs(pixels.astype(float) - expected).max() <= 3


ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 563 / 256


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("colour", [(128, 64, 64), (200, 180, 30), (90, 90, 90), (60, 120, 200), (255, 255, 255)])
@pytest.mark.parametrize("mode", [pytest.param("RGB", id="I11-icc"), pytest.param("RGBA", id="I11-icc-with-alpha")])
def test_a_colour_profile_is_converted_to_srgb(colour: tuple[int, int, int], mode: str) -> None:
    """Adobe RGB is converted by hand: gamma, primaries to XYZ, XYZ to sRGB's primaries, sRGB's curve."""
    expected = srgb_curve(np.linalg.solve(SRGB, ADOBE @ (np.array(colour) / 255) ** GAMMA))
    im = Image.new("RGB", (8, 8), colour).convert(mode)
    if mode == "RGBA":
        im.putalpha(77)
    raw = encode(im, icc_profile=profile(b"RGB ", GAMMA, ADOBE.T))
    pixels, traits = decode(raw, 8, len(mode))
    assert np.abs(pixels[..., :3] - expected).max() <= 3
    assert Trait.BAD_PROFILE not in traits
    assert mode == "RGB" or (pixels[..., 3] == 77).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_profile_is_judged_by_its_colours_and_not_by_its_name(mode: str) -> None:
    im = Image.new("RGB", (8, 8), (128, 64, 20)).convert(mode)
    linear = profile(b"RGB ", 1.0, SRGB.T, b"Linear sRGB")
    pixels, _ = decode(encode(im, icc_profile=linear), 8, len(mode))
    assert np.abs(pixels[..., :3] - srgb_curve(np.array([128, 64, 20]) / 255)).max() <= 3
    other_name = profile(b"RGB ", 1.0, SRGB.T, b"of a scanner")
    assert np.array_equal(decode(encode(im, icc_profile=other_name), 8, len(mode))[0], pixels)


@pytest.mark.parametrize("mode", [pytest.param("L", id="I11-icc-grey"), pytest.param("LA", id="I11-icc-grey-alpha")])
def test_a_grey_profile_is_converted_to_srgb(mode: str) -> None:
    im = Image.new("L", (8, 8), 128).convert(mode)
    if mode == "LA":
        im.putalpha(50)
    pixels, traits = decode(encode(im, icc_profile=profile(b"GRAY", 1.0)), 8, len(mode))
    assert abs(float(pixels[0, 0, 0]) - srgb_curve(np.array(128 / 255))) <= 3
    assert Trait.BAD_PROFILE not in traits
    assert mode == "L" or (pixels[..., 1] == 50).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_an_srgb_image_keeps_its_pixels(mode: str) -> None:
    """Also greyscale with a colour profile, which many programs write and no transform accepts."""
    im = Image.fromarray(np.random.default_rng(6).integers(0, 256, (8, 8, 3), np.uint8)).convert(mode)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels, traits = decode(encode(im, icc_profile=srgb), 8, len(mode))
    assert np.array_equal(pixels.squeeze(), np.asarray(im))
    assert traits == set()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"junk" * 50, id="I11-junk-profile"),
        pytest.param(profile(b"RGB ", GAMMA, ADOBE.T)[:200], id="I11-cut-profile"),
    ],
)
def test_a_broken_profile_is_ignored_and_reported(mode: str, broken: bytes) -> None:
    im = Image.new("RGB", (8, 8), (128, 64, 64)).convert(mode)
    pixels, traits = decode(encode(im, "TIFF", icc_profile=broken), 8, 3)
    assert np.array_equal(pixels, np.asarray(im.convert("RGB")))
    assert traits == {Trait.BAD_PROFILE}


def half_transparent(mode: str) -> bytes:
    """The left half is opaque at 50, the right half fully transparent, encoded in one of six ways."""
    grey = np.full((8, 8), 50, np.uint8)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, 4:] = 0
    if mode in ("LA", "RGBA"):
        im = Image.fromarray(grey).convert("RGB" if mode == "RGBA" else "L")
        im.putalpha(Image.fromarray(alpha))
        return encode(im)
    grey[:, 4:] = 99
    if mode == "L-tRNS":
        return encode(Image.fromarray(grey), transparency=99)
    if mode == "RGB-tRNS":
        return encode(Image.fromarray(grey).convert("RGB"), transparency=(99, 99, 99))
    indexed = Image.fromarray((grey == 99).astype(np.uint8))
    indexed.putpalette([50, 50, 50, 99, 99, 99])
    return encode(indexed, transparency=b"\xff\0" if mode == "P-bytes" else 1)


TRANSPARENCY_MODES = ["RGBA", "LA", "L-tRNS", "RGB-tRNS", "P-index", "P-bytes"]
LEVEL = {"white": 255, "black": 0, "grey": 128}


@pytest.mark.parametrize("background", LEVEL)
@pytest.mark.parametrize("mode", TRANSPARENCY_MODES, ids=[f"I12-{mode}" for mode in TRANSPARENCY_MODES])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_composited_over_the_background(mode: str, background: str, channels: int) -> None:
    pixels, traits = decode(half_transparent(mode), 8, channels, background)
    assert (pixels[:, :4] == 50).all()
    assert (pixels[:, 4:] == LEVEL[background]).all()
    assert traits == {Trait.ALPHA}


@pytest.mark.parametrize("mode", TRANSPARENCY_MODES, ids=[f"I12-kept-{mode}" for mode in TRANSPARENCY_MODES])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_kept(mode: str, channels: int) -> None:
    pixels, traits = decode(half_transparent(mode), 8, channels)
    assert (pixels[:, :4, :-1] == 50).all()
    assert (pixels[:, :4, -1] == 255).all()
    assert (pixels[:, 4:, -1] == 0).all()
    assert traits == {Trait.ALPHA}


def test_half_transparent_pixels_are_half_background() -> None:
    im = Image.new("RGBA", (8, 8), (100, 0, 200, 128))
    pixels, _ = decode(encode(im), 8, 3, "white")
    assert np.abs(pixels - (np.array([100, 0, 200]) * 128 + 255 * 127) / 255).max() <= 1


def test_opaque_alpha_is_not_reported() -> None:
    assert decode(encode(Image.new("RGBA", (8, 8), (9, 9, 9, 255))), 8, 3)[1] == set()


def test_colours_of_transparent_pixels_do_not_bleed() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 0, 0, 255)
    pixels[:, 4:] = (0, 255, 0, 0)
    kept, _ = decode(encode(Image.fromarray(pixels)), 2, 4)
    assert kept[..., 1].max() == 0
    assert kept[:, 0, 0].min() >= 198


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_mode_and_every_number_of_channels(mode: str, channels: int) -> None:
    im = Image.new("RGB", (8, 8), (255, 255, 255))
    im.paste((0, 0, 0), (0, 0, 4, 8))
    pixels, _ = decode(encode(im.convert(mode)), 8, channels)
    assert pixels.shape == (8, 8, channels)
    colours = pixels if channels in (1, 3) else pixels[..., :-1]
    assert (colours[:, :4] == 0).all()
    assert (colours[:, 4:] == 255).all()
    assert channels in (1, 3) or (pixels[..., -1] == 255).all()


def test_greyscale_is_luminance() -> None:
    pixels, _ = decode(encode(Image.new("RGB", (8, 8), (200, 100, 50))), 8, 1)
    assert abs(float(pixels[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS, ids=[f"I14-exif-{n}" for n in TURNS])
def test_exif_orientations_are_applied(orientation: int, kind: str) -> None:
    upright = np.random.default_rng(1).integers(0, 256, (9, 14, 3), np.uint8)
    turn = TURNS[orientation]
    stored = Image.fromarray(upright)
    stored = stored if turn is None else stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, _ = decode(encode(stored, kind, exif=exif, **options), 9, 3)
    assert np.array_equal(pixels, upright[:, 2:11])


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_orientation_may_be_in_xmp_data(orientation: int, kind: str) -> None:
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    stored = Image.fromarray(np.arange(9 * 14, dtype=np.uint8).reshape(9, 14))
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        raw = encode(stored, kind, pnginfo=info)
    else:
        raw = encode(stored, kind, xmp=xmp)
    with strict_pillow():
        header = read_header(io.BytesIO(raw))
        whole = decode_image(io.BytesIO(raw), TargetFormat((header.height, header.width), 1, "white"))[0]
    with Image.open(io.BytesIO(raw)) as im:
        assert np.array_equal(whole[..., 0], np.asarray(ImageOps.exif_transpose(im)))


def with_orientation(kind: str, exif: int, raw: int, xmp: int, behind: bool) -> bytes:
    """An image of 9 x 14 pixels whose orientation is in EXIF data, in ImageMagick's text, in XMP data; 0 for none."""
    stored = Image.fromarray(np.arange(9 * 14, dtype=np.uint8).reshape(14, 9))
    block, text = Image.Exif(), f'<x:xmpmeta><rdf:Description tiff:Orientation="{xmp}"/></x:xmpmeta>'
    block[0x0112] = exif or raw
    if kind == "TIFF":
        tags: dict[int, object] = ({274: exif} if exif else {}) | ({700: text.encode()} if xmp else {})
        return encode(stored, kind, tiffinfo=tags)
    if kind != "PNG":
        return encode(stored, kind, **({"exif": block} if exif else {}), **({"xmp": text.encode()} if xmp else {}))
    plain = encode(stored)
    chunks = [chunk(b"eXIf", block.tobytes()[6:])] if exif else []
    block[0x0112] = raw
    profile = f"\nexif\n{len(block.tobytes()):8}\n{block.tobytes().hex()}\n".encode()
    chunks += [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))] if raw else []
    chunks += [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode())] if xmp else []
    place = len(plain) - 12 if behind else 33  # before the last chunk, or after the first
    return plain[:place] + b"".join(chunks) + plain[place:]


PLACES = [(kind, False) for kind in ("PNG", "JPEG", "WEBP", "TIFF")] + [("PNG", True)]


@pytest.mark.parametrize("xmp", [0, 1, 6])
@pytest.mark.parametrize("exif", [0, 1, 6])
@pytest.mark.parametrize(("kind", "behind"), PLACES)
def test_the_size_in_a_header_is_that_of_the_decoded_image(kind: str, behind: bool, exif: int, xmp: int) -> None:
    """Wherever the orientation is, and if two places contradict each other."""
    for raw in (0, 1, 8) if kind == "PNG" else (0,):
        data = with_orientation(kind, exif, raw, xmp, behind)
        with Image.open(io.BytesIO(data)) as im:
            im.load()
            width, height = (im if kind == "TIFF" else ImageOps.exif_transpose(im)).size
        with strict_pillow():
            header = read_header(io.BytesIO(data))
        assert (header.width, header.height) == (width, height), raw


@pytest.mark.parametrize(("kind", "behind"), PLACES)
def test_pairs_side_by_side_may_be_turned(kind: str, behind: bool) -> None:
    stored = Image.fromarray(np.arange(9 * 18, dtype=np.uint8).reshape(18, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(stored, kind, exif=exif)
    if behind:
        start = data.index(b"eXIf") - 4
        moved = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
        data = data.replace(moved, b"")[:-12] + moved + data[-12:]
    target = TargetFormat((9, 9), 1, "white", "crop", halves=(1, 1))
    with strict_pillow():
        pixels, _ = decode_image(io.BytesIO(data), target)
    assert pixels.shape == (9, 9, 2)
    if kind in ("PNG", "TIFF"):
        whole = np.rot90(np.asarray(stored), -1)
        assert np.array_equal(pixels, np.stack((whole[:, :9], whole[:, 9:]), 2))


def test_only_a_png_with_an_orientation_behind_its_pixels_is_decoded_for_its_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("it is decoded")

    early, late = (with_orientation("PNG", 6, 6, 6, behind) for behind in (False, True))
    plain = with_orientation("PNG", 0, 0, 0, behind=False)
    dated = plain[:-12] + chunk(b"tEXt", b"date:create\0yesterday") + plain[-12:]
    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    for data in (early, plain, dated):
        read_header(io.BytesIO(data))
    with pytest.raises(AssertionError, match="it is decoded"):
        read_header(io.BytesIO(late))


def test_broken_exif_is_ignored_and_reported() -> None:
    im = Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8))
    raw = encode(im, exif=b"Exif\0\0nonsense that is no TIFF header")
    pixels, traits = decode(raw, 8, 3)
    assert np.array_equal(pixels, np.asarray(im))
    assert traits == {Trait.BAD_EXIF}


def test_cropping_alone_keeps_the_pixels() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 13, 3), np.uint8)
    assert np.array_equal(fit_image(Image.fromarray(pixels), TargetFormat((8, 8), 3, "white")), pixels[:, 2:10])


def test_resizing_does_not_alias() -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit_image(Image.fromarray(checkerboard), TargetFormat((8, 8), 1, "white"))
    assert small.min() >= 126
    assert small.max() <= 129


def test_resizing_is_lanczos() -> None:
    """A float64 implementation of the antialiased filter agrees within 1.5 levels."""
    pixels = np.random.default_rng(4).integers(0, 256, (24, 24), np.uint8)
    centres = (np.arange(8) + 0.5) * 3
    offset = (np.arange(24)[None] + 0.5 - centres[:, None]) / 3
    weights = np.where(np.abs(offset) < 3, np.sinc(offset) * np.sinc(offset / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    expected = (weights @ pixels @ weights.T).clip(0, 255)
    assert np.abs(fit_image(Image.fromarray(pixels), TargetFormat((8, 8), 1, "white"))[..., 0] - expected).max() <= 1.5


def test_headers() -> None:
    with strict_pillow():
        raw = encode(Image.new("RGB", (8, 5)), "JPEG")
        assert read_header(io.BytesIO(raw)) == Header("JPEG", "RGB", 8, 5, False)
        assert not read_header(io.BytesIO(raw)).grey
        assert read_header(io.BytesIO(png(4, 4, depth=16, colour=4))).grey


def test_arrays_are_converted_like_files() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (3, 10, 12, 4), np.uint8)
    target = TargetFormat((6, 6), 3, "grey")
    files = [decode(encode(Image.fromarray(image)), 6, 3, "grey")[0] for image in pixels]
    assert np.array_equal(convert_array(pixels, target), np.stack(files))
    unchanged = pixels[:, :10, :10, :3]
    assert convert_array(unchanged, TargetFormat((10, 10), 3, "white")) is unchanged


def test_strict_pillow_restores_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    with strict_pillow():
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert warnings.filters == filters
