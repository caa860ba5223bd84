import dataclasses
import io
import urllib.error
import urllib.request

import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.prepare import download


def remote(tmp_path):
    """A file of noise and where it can be had."""
    path = tmp_path / "remote" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path, download.Archive(path.as_uri(), download.md5(path))


def test_a_damaged_download_is_deleted(tmp_path):
    _, local = remote(tmp_path)
    wrong = dataclasses.replace(local, md5="0" * 32)
    with pytest.raises(UserError, match=f"has md5 {local.md5}, expected {'0' * 32}"):
        download.download(wrong, tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())


def test_a_failed_download_says_what_to_do(tmp_path):
    path, local = remote(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"download failed .*source=FILE"):
        download.download(local, tmp_path / "downloads")


@pytest.mark.parametrize("server_resumes", [True, False])
def test_an_interrupted_download_goes_on(tmp_path, monkeypatch, server_resumes):
    path, local = remote(tmp_path)
    content = path.read_bytes()
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / f"{local.name}.partial").write_bytes(content[:1000])

    class Response(io.BytesIO):
        headers = {}  # noqa: RUF012
        status = 206 if server_resumes else 200

    asked = []

    def urlopen(request, timeout):
        asked.append(request.get_header("Range"))
        return Response(content[1000:] if server_resumes else content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert download.download(local, downloads).read_bytes() == content
    assert asked == ["bytes=1000-"]


def test_a_download_cut_short_is_kept_and_one_that_is_whole_is_taken(tmp_path, monkeypatch):
    path, local = remote(tmp_path)
    content = path.read_bytes()
    downloads = tmp_path / "downloads"
    partial = downloads / f"{local.name}.partial"

    class Short(io.BytesIO):
        headers = {"Content-Length": str(len(content))}  # noqa: RUF012
        status = 200

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Short(content[:1000]))
    with pytest.raises(UserError, match=r"download failed .*closed before the end.*same command"):
        download.download(local, downloads)
    assert partial.read_bytes() == content[:1000]

    def refuses(request, timeout):
        raise urllib.error.HTTPError(local.url, 416, "Range Not Satisfiable", None, None)  # pyright: ignore

    partial.write_bytes(content)  # killed after the last byte
    monkeypatch.setattr(urllib.request, "urlopen", refuses)
    assert download.download(local, downloads).read_bytes() == content
