"""One picture, from a file of any usual kind to bytes of the size and colours that are wanted."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import Raw

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")  # Pillow knows more, of which some start programs
MAXIMUM_BYTES = 256 << 20
THUMBNAIL = (9, 8)  # columns and rows of what near-duplicates are told by
ORIENTATION = 0x0112  # the tag of EXIF
LUMA = np.array([299, 587, 114])  # of 1000: how bright red, green and blue are
CONSTANT = "of one colour all over"
TURNED = (5, 6, 7, 8)  # its values with which width and height change places


@dataclass(frozen=True)
class Target:
    """What every picture is brought to. fit: stretch or crop; background: what is seen through a picture; upright: turn
    as EXIF says."""

    channels: int
    height: int
    width: int
    fit: str
    background: str
    upright: bool
    maximum_pixels: int


@dataclass(frozen=True)
class Decoded:
    """pixels: uint8 (h, w, c); size: width and height before; thumbnail: uint8 (8, 9, 3); traits: what was done to
    it, in words."""

    pixels: np.ndarray
    size: tuple[int, int]
    thumbnail: np.ndarray
    traits: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Pictures that follow each other. places: int (k,) of those that are whole, from 0; pixels: uint8 (k, c, h, w);
    sizes: int (k, 2); thumbnails: uint8 (k, 8, 9), grey; means: uint8 (k, 3), of the colours; traits: of all of them;
    broken: places and reasons of the others."""

    places: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray
    thumbnails: np.ndarray
    means: np.ndarray
    traits: list[str]
    broken: list[tuple[int, str]]


def batch_of(pictures: list[Decoded | str]) -> Batch:
    """Return pictures, and reasons why there are none, together."""
    whole = {place: one for place, one in enumerate(pictures) if isinstance(one, Decoded)}
    broken = [(place, one) for place, one in enumerate(pictures) if isinstance(one, str)]
    traits = [trait for one in whole.values() for trait in one.traits]
    places = np.array(list(whole), np.int64)
    if not whole:
        none = np.empty(0, np.uint8)
        return Batch(places, none, none.reshape(0, 2), none.reshape(0, 8, 9), none.reshape(0, 3), traits, broken)
    rows = np.stack([one.pixels for one in whole.values()])
    pixels = np.stack([rows[..., channel] for channel in range(rows.shape[3])], axis=1)  # faster than a transposed copy
    colours = np.stack([one.thumbnail for one in whole.values()])
    flat = (colours == colours[:, :1, :1]).all((1, 2, 3))
    traits += [CONSTANT] * int((pixels[flat] == pixels[flat, :, :1, :1]).all((1, 2, 3)).sum())
    grey = ((colours @ LUMA + 500) // 1000).astype(np.uint8)
    means = colours.mean((1, 2)).round().astype(np.uint8)
    return Batch(places, pixels, np.array([one.size for one in whole.values()]), grey, means, traits, broken)


@contextmanager
def _opened(raw: Raw, maximum_pixels: int) -> Iterator["Image"]:
    """Open a picture, of which only the header is read yet."""
    from PIL import Image

    def check(width: int, height: int) -> None:
        if width * height > maximum_pixels:
            raise InputError(f"claims {width:,} x {height:,} pixels, more than {maximum_pixels:,}")

    if isinstance(raw, np.ndarray):
        check(raw.shape[1], raw.shape[0])
        flat = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
        yield Image.fromarray(np.ascontiguousarray(flat))
        return
    with Image.open(io.BytesIO(raw if isinstance(raw, bytes) else _content(raw)), formats=FORMATS) as image:
        check(image.width, image.height)
        yield image


def _content(path: Path) -> bytes:
    """Return the content of a file, read at once: faster than as the decoder asks for it."""
    with open(path, "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MAXIMUM_BYTES:
            raise InputError(f"holds {size:,} bytes, more than any picture")
        return file.read()


def _orientation(image: "Image") -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1)) if "exif" in image.info else 1
    except Exception:  # broken data about a picture do not break it
        return 1


def _within(region: np.ndarray, image: "Image") -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(number) for number in region)
    return max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)


def _is_grey(image: "Image") -> bool:
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def look(raw: Raw, region: np.ndarray | None, target: Target) -> tuple[int, int, bool]:
    """Return width, height and whether a picture is grey, from its header."""
    with _opened(raw, target.maximum_pixels) as image:
        width, height = image.size
        if target.upright and _orientation(image) in TURNED:
            width, height = height, width
        if region is not None and region.any():
            left, top, right, bottom = _within(region, image)
            width, height = right - left, bottom - top
        return width, height, _is_grey(image)


def _plain(image: "Image", background: str, traits: list[str]) -> "Image":
    """Return a picture in grey or red, green and blue of 8 bits, with nothing seen through."""
    from PIL import Image

    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise InputError("has pixels of floating point, whose range nobody tells")
    if image.mode.startswith("I"):
        traits.append("of 16 bits, the upper 8 were kept")
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        traits.append(f"with transparency, put on {background}")
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        return image.convert("L" if grey else "RGB")
    if image.mode == "1":
        return image.convert("L")
    traits.append("with a palette" if image.mode == "P" else f"in {image.mode}")
    return image.convert("RGB")


def _box(size: tuple[int, int], target: Target) -> tuple[float, float, float, float]:
    """Return which part of a picture is kept: all, or the middle of the wanted shape."""
    width, height = size
    if target.fit == "stretch":
        return 0, 0, width, height
    scale = min(width / target.width, height / target.height)
    left, top = (width - scale * target.width) / 2, (height - scale * target.height) / 2
    return left, top, width - left, height - top


def decode(raw: Raw, region: np.ndarray | None, target: Target) -> Decoded:
    """Return a picture as it is wanted.

    Raises:
        Exception: it is broken; decoders raise errors of many kinds.
    """
    from PIL import Image, ImageOps

    traits: list[str] = []
    with _opened(raw, target.maximum_pixels) as image:
        turned = target.upright and _orientation(image)
        size = (image.height, image.width) if turned in TURNED else image.size
        if region is not None and region.any():
            image = image.crop(_within(region, image))
            size = image.size
        else:  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that is still twice of what is wanted
            image.draft(None, (2 * max(target.width, target.height),) * 2)
        if turned and turned != 1:
            traits.append("turned as EXIF says")
            image = ImageOps.exif_transpose(image)
        image = _plain(image, target.background, traits)
        wanted = "L" if target.channels == 1 else "RGB"
        if image.mode == "RGB" and wanted == "L":
            traits.append("in colour, made grey")
        if image.mode != wanted:
            image = image.convert(wanted)
        if image.size != (target.width, target.height):
            box = _box(image.size, target)
            image = image.resize((target.width, target.height), Image.Resampling.BILINEAR, box)
        less = max(1, target.width // (2 * THUMBNAIL[0])), max(1, target.height // (2 * THUMBNAIL[1]))
        thumbnail = np.asarray(image.reduce(less).resize(THUMBNAIL, Image.Resampling.BOX).convert("RGB"))
        return Decoded(np.atleast_3d(np.asarray(image)), size, thumbnail, tuple(traits))


def reason_of(error: Exception, raw: Any) -> str:
    """Return why a picture was skipped, without the path of this machine."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "is no picture of a known kind, or its beginning is broken"
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "claims more pixels than any picture has"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).replace(str(raw), "it") if isinstance(raw, Path) else str(error)
    return text or type(error).__name__
