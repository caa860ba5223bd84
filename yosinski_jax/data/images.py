"""Encoded images to arrays and back: OpenCV if it can be imported, otherwise Pillow (same pixels)."""

import functools
import io
import struct
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

# A file can declare any size: 8192×8192 RGB pixels take 200 MB, ImageNet's largest image a third of that.
MAX_PIXELS = 1 << 26
# ITU-R BT.601, as Pillow's conversion to grey.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@functools.cache
def opencv() -> ModuleType | None:
    """Returns the cv2 module, or None if it cannot be imported; Pillow then decodes, more slowly."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return cv2


def decode(data: bytes, channels: int = 3) -> np.ndarray:
    """Decodes a JPEG, PNG or any other format that the decoder supports.

    Args:
        data: the encoded file.
        channels: 1 for grey, 3 for RGB; other color spaces are converted.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ValueError: the bytes are not a readable image, or declare more than `MAX_PIXELS`.
    """
    cv2, declared = opencv(), _declared(data)
    if declared is not None:
        _check_size(declared.height, declared.width)
    if cv2 is not None and declared is not None and declared.plain:
        # OpenCV 4.11 and later can decode to RGB, earlier ones only to BGR.
        rgb = getattr(cv2, "IMREAD_COLOR_RGB", None)
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else rgb or cv2.IMREAD_COLOR
        # Pillow does not apply the EXIF orientation, and neither does TFDS.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:
            if channels == 1:
                return pixels[:, :, None]
            return pixels if rgb else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    from PIL import Image  # here: pixel arrays do not need it

    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image.height, image.width)
            if image.mode.startswith("I"):  # 16 bits: Pillow would clip instead of scale
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image ({error})") from None
    return pixels[:, :, None] if channels == 1 else pixels


def png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 pixels [height, width, 1 or 3] as PNG."""
    from PIL import Image

    file = io.BytesIO()
    plain = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(plain)).save(file, "PNG")
    return file.getvalue()


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image to a square, quickly and without keeping its aspect ratio.

    For images that were not prepared at one size. With OpenCV its fastest method is used, so pixels differ slightly
    from those without it. Not used for preparing datasets.

    Args:
        pixels: uint8 [height, width, channels].
        size: height and width of the result, in pixels.

    Returns:
        uint8 [size, size, channels].
    """
    height, width, channels = pixels.shape
    if height == width == size:
        return pixels
    cv2 = opencv()
    if cv2 is not None:
        while min(pixels.shape[:2]) >= 2 * size:  # means of 2x2 pixels, against aliasing
            half = (pixels.shape[1] // 2, pixels.shape[0] // 2)
            pixels = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
        resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(size, size, channels)
    shrinks = height >= size and width >= size
    from PIL import Image

    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(image.resize((size, size), how)).reshape(size, size, channels)


def fit(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Converts an image of any dtype to a size and number of channels; the same on every machine.

    Args:
        pixels: [height, width, 1 or 3].
        shape: (height, width, 1 or 3).

    Returns:
        [height, width, channels] of the same dtype: bilinear (means of areas where it shrinks), grey repeated, RGB
        weighed by its luma.
    """
    height, width, channels = shape
    exact = pixels.astype(np.float32)
    if channels < pixels.shape[2]:
        exact = (exact @ _LUMA)[..., None]
    if pixels.shape[:2] != (height, width):
        from PIL import Image

        how = Image.Resampling.BILINEAR
        planes = [
            Image.fromarray(plane).resize((width, height), how)
            for plane in np.moveaxis(exact, 2, 0)
        ]
        exact = np.stack([np.asarray(plane) for plane in planes], axis=2)
    if pixels.dtype.kind != "f":
        exact = np.round(exact)
    return np.broadcast_to(exact, (height, width, channels)).astype(pixels.dtype)


# JPEG markers that start a frame: SOF0 ... SOF15 without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class _Declared(NamedTuple):
    """The header of an image file.

    Attributes:
        height: in pixels.
        width: in pixels.
        plain: whether OpenCV decodes the file like Pillow. It does not for CMYK (other colors), 16 bits (other
            rounding) and truncated files, which OpenCV pads with grey where Pillow raises.
    """

    height: int
    width: int
    plain: bool


def _declared(data: bytes) -> _Declared | None:
    """Reads the header of a PNG or JPEG file; None if it is neither."""
    if data[:4] == b"\x89PNG" and len(data) > 24:
        width, height = struct.unpack(">II", data[16:24])
        return _Declared(height, width, data[24] == 8 and data.endswith(b"IEND\xaeB\x60\x82"))
    if data[:2] != b"\xff\xd8":
        return None
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            height, width, components = struct.unpack(">HHB", data[at + 5 : at + 10])
            return _Declared(height, width, components in (1, 3) and data.endswith(b"\xff\xd9"))
        if marker == 0xFF:  # fill byte
            at += 1
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f"declares {width}×{height} pixels, more than {MAX_PIXELS >> 20} Mi")
