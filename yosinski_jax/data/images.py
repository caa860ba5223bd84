"""Encoded images to arrays and back: OpenCV where it is importable, else Pillow (same pixels)."""

import functools
import io
from types import ModuleType

import numpy as np
from PIL import Image


@functools.cache
def opencv() -> ModuleType | None:
    """Returns the cv2 module, or None where it does not load; Pillow then decodes, more slowly."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return cv2


def decode(data: bytes, channels: int = 3) -> np.ndarray:
    """Decodes a JPEG, PNG or any other file that the decoder knows.

    Args:
        data: the encoded file.
        channels: 1 for grey, 3 for RGB; images of another colour system are converted.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ValueError: the bytes are not a readable image.
    """
    cv2 = opencv()
    if cv2 is not None and _is_plain(data):
        # OpenCV 4.11 and later decode to RGB at once, earlier ones to BGR only.
        rgb = getattr(cv2, "IMREAD_COLOR_RGB", None)
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else rgb or cv2.IMREAD_COLOR
        # Pillow does not apply the EXIF orientation, and neither does TFDS.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:
            if channels == 1:
                return pixels[:, :, None]
            return pixels if rgb else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # 16 bits: Pillow would clip instead of scale
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image ({error})") from None
    return pixels[:, :, None] if channels == 1 else pixels


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Brings an image to a square, quickly and without keeping its aspect ratio.

    For reading images that were not prepared at one size; the pixels depend a little on whether
    OpenCV is there, which takes its fastest way. Preparing does not use this.

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
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(image.resize((size, size), how)).reshape(size, size, channels)


# JPEG markers that start a frame: SOF0 ... SOF15 without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_components(data: bytes) -> int | None:
    """Returns the number of colour components of a JPEG file (CMYK: 4), None if it is not one."""
    if data[:2] != b"\xff\xd8":
        return None
    at, end = 2, len(data) - 9
    while at < end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            return data[at + 9]
        if marker == 0xFF:  # fill byte
            at += 1
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _is_plain(data: bytes) -> bool:
    """Whether OpenCV reads a file as Pillow does.

    Not so for CMYK (other colours), 16 bits (other rounding) and truncated files, which OpenCV
    fills up with grey where Pillow raises.
    """
    if data[:4] == b"\x89PNG":
        return data[24] == 8 and data.endswith(b"IEND\xaeB\x60\x82")
    return jpeg_components(data) in (1, 3) and data.endswith(b"\xff\xd9")
