"""Official archives: downloading them, and their published checksums."""

import dataclasses
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Archive:
    """One official download.

    Attributes:
        url: where it is.
        md5: its published checksum.
        files: md5 of the unpacked files that are read; empty if none are published.
    """

    url: str
    md5: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name of the download."""
        return self.url.rsplit("/", 1)[-1]


def download(archive: Archive, folder: Path) -> Path:
    """Downloads an archive; resumes an interrupted download.

    Returns:
        The file.

    Raises:
        UserError: no connection, or a checksum mismatch.
    """
    path = folder / archive.name
    partial = folder / f"{archive.name}.partial"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(archive.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            if getattr(response, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends the whole file
            rest = int(response.headers.get("Content-Length") or 0)
            with (
                open(partial, "ab" if have else "wb") as file,
                Progress(archive.name, (have + rest) >> 20, unit="MiB") as progress,
            ):
                progress.advance(have >> 20)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    progress.advance(len(chunk) >> 20)
            if rest and partial.stat().st_size < have + rest:
                raise ConnectionError("the connection was closed before the end")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as e:
        # The server refuses this range if the partial file is already complete.
        complete = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if not have or getattr(e, "code", None) != complete:
            raise UserError(
                f"{archive.url}: download failed ({getattr(e, 'reason', e)}); run the same command again, or fetch the file "
                "by other means and give it with source=FILE"
            ) from None
    found = md5(partial)
    if found != archive.md5:
        partial.unlink()
        raise UserError(
            f"{archive.url}: the download has md5 {found}, expected {archive.md5}; it was "
            "deleted, run the same command again"
        )
    os.replace(partial, path)
    return path


def md5(path: Path) -> str:
    """Returns the md5 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
