"""Decoding: colour systems, odd files, and equal pixels from both decoders."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny_datasets import encode

from yosinski_jax.data import images


def smooth(height=24, width=32):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 6, y * 6, 255 - x * 3 - y], axis=-1).astype(np.uint8)


@pytest.fixture(params=["pillow", "opencv"])
def decoder(request, monkeypatch):
    if request.param == "opencv":
        pytest.importorskip("cv2")
    else:
        monkeypatch.setattr(images, "opencv", lambda: None)
    return images.decode


def test_png_is_exact(decoder):
    np.testing.assert_array_equal(decoder(encode(smooth())), smooth())


def test_jpeg_is_pillows(decoder):
    data = encode(smooth(), "JPEG", quality=80)
    np.testing.assert_array_equal(decoder(data), np.asarray(Image.open(io.BytesIO(data))))


def test_grey_becomes_three_equal_channels_or_one(decoder):
    data = encode(smooth()[..., 0], "JPEG", quality=95)
    three, one = decoder(data), decoder(data, channels=1)
    assert three.shape == (24, 32, 3) and one.shape == (24, 32, 1)
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=-1))


def test_cmyk_has_the_colours_of_rgb(decoder):
    file = io.BytesIO()
    Image.fromarray(smooth()).convert("CMYK").save(file, "JPEG", quality=95)
    assert not images._declared(file.getvalue()).plain
    assert np.abs(decoder(file.getvalue()).astype(int) - smooth()).mean() < 6


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_png_oddities(decoder, mode):
    file = io.BytesIO()
    Image.fromarray(smooth()).convert(mode).save(file, "PNG")
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(decoder(file.getvalue()), expected)


def test_sixteen_bits_are_scaled(decoder):
    deep = (smooth()[..., 0].astype(np.uint16) << 8) + 77
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    np.testing.assert_array_equal(decoder(file.getvalue(), channels=1)[..., 0], smooth()[..., 0])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_truncated_and_foreign_bytes_raise(decoder, form):
    data = encode(smooth(), form)
    for damaged in (data[: len(data) * 2 // 3], b"", b"not an image"):
        with pytest.raises(ValueError, match="not a readable image"):
            decoder(damaged)


@pytest.mark.parametrize("size", [8, 20, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize(decoder, size, channels):
    pixels = smooth(40, 40)[..., :channels]
    resized = images.resize(pixels, size)
    assert resized.shape == (size, size, channels) and resized.dtype == np.uint8
    if size == 40:
        assert resized is pixels
    else:
        factor = 40 // size
        means = pixels.reshape(size, factor, size, factor, channels).mean(axis=(1, 3))
        assert np.abs(resized - means).max() <= 1


def test_resize_enlarges_linearly(decoder):
    pixels = np.array([[0, 100]], np.uint8).repeat(2, axis=0)[..., None]
    assert images.resize(pixels, 4)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_what_the_head_of_a_file_declares():
    for form in ("JPEG", "PNG"):
        for pixels in (smooth(), smooth()[..., 0]):
            assert images._declared(encode(pixels, form)) == (24, 32, True)
        assert not images._declared(encode(smooth(), form)[:-4]).plain
    assert images._declared(encode(smooth(), "BMP")) is None
    assert images._declared(b"\x89PNG") is None


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_a_bomb_is_refused_by_its_head(decoder, monkeypatch, form):
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 32 - 1)
    if form != "BMP":  # whose size is known only once it is opened
        monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match="declares 32×24 pixels, more than"):
        decoder(encode(smooth(), form))


def test_fit_to_another_size_and_channels():
    rgb, grey = smooth(), smooth()[..., :1]
    assert images.fit(rgb, (24, 32, 3)).tolist() == rgb.tolist()
    np.testing.assert_array_equal(images.fit(grey, (24, 32, 3)), np.repeat(grey, 3, axis=2))
    luma = np.asarray(Image.fromarray(rgb).convert("L")).astype(int)
    assert np.abs(images.fit(rgb, (24, 32, 1))[..., 0] - luma).max() <= 1
    half = images.fit(rgb, (12, 16, 3))
    means = rgb.reshape(12, 2, 16, 2, 3).mean(axis=(1, 3))
    assert half.dtype == np.uint8 and np.abs(half[2:-2, 2:-2] - means[2:-2, 2:-2]).max() <= 1
    for dtype, scale in ((np.uint16, 257), (np.float32, 1 / 255)):
        other = images.fit((rgb * float(scale)).astype(dtype), (12, 16, 3))
        assert other.dtype == dtype
        np.testing.assert_allclose(other, half.astype(float) * scale, atol=0.51 * scale + 1e-6)
