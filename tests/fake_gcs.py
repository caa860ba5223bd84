"""A stand-in for Google Cloud Storage: its JSON API over objects in memory, on localhost.

It serves both roads into a bucket: tensorstore's own client (orbax's arrays), and the fsspec file system
under `etils.epath`, which is gcsfs where that is installed and the few lines of `FileSystem` elsewhere.
"""

import http.server
import importlib
import importlib.util
import io
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import fsspec

_TIME = "2024-01-01T00:00:00.000Z"


class Server(http.server.ThreadingHTTPServer):
    """The buckets. Every bucket exists but "missing"."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.generation = 0
        self.uploads: list[bytes] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        pass  # a client that has heard enough hangs up

    def names(self, prefix):
        """Names of the objects under BUCKET/PREFIX, without it."""
        bucket, _, prefix = prefix.partition("/")
        with self.lock:
            found = [n for b, n in self.objects if b == bucket and n.startswith(prefix)]
        return sorted(n.removeprefix(prefix) for n in found)

    def read(self, path):
        """The bytes of the object BUCKET/NAME."""
        bucket, _, name = path.partition("/")
        return self.objects[bucket, name][1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_):
        pass

    def _answer(self, code, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in ({"content-type": kind} | headers).items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, code, message):
        self._answer(code, {"error": {"code": code, "message": message}})

    def _parts(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        found = re.search(r"/b/([^/]+)(/o(?:/(.*))?)?$", url.path)
        bucket, listing, name = found.groups() if found else ("missing", None, None)
        return bucket, listing is not None, urllib.parse.unquote(name or ""), query

    def _resource(self, bucket, name):
        generation, data = self.server.objects[bucket, name]
        return {
            "kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(data)),
            "generation": str(generation), "metageneration": "1", "updated": _TIME, "timeCreated": _TIME,
        }  # fmt: skip

    def do_GET(self):
        bucket, in_bucket, name, query = self._parts()
        with self.server.lock:
            if bucket == "missing":
                self._error(404, "The specified bucket does not exist.")
            elif not in_bucket:
                self._answer(200, {"kind": "storage#bucket", "name": bucket})
            elif not name:
                self._answer(200, self._listing(bucket, query))
            elif (bucket, name) not in self.server.objects:
                self._error(404, f"No such object: {bucket}/{name}")
            elif query.get("alt") != "media":
                self._answer(200, self._resource(bucket, name))
            else:
                self._media(*self.server.objects[bucket, name], query)

    def _media(self, generation, data, query):
        if query.get("ifGenerationNotMatch") == str(generation):
            return self._answer(304)
        if query.get("ifGenerationMatch") not in (None, str(generation)):
            return self._error(412, "conditionNotMet")
        tags = {"x-goog-generation": str(generation)}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        if not span:
            return self._answer(200, data, **tags)
        first, last = span.groups()
        begin = int(first) if first else max(len(data) - int(last), 0)
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if begin >= len(data):
            return self._error(416, "range")
        tags["content-range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        return self._answer(206, data[begin:end], **tags)

    def _listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], []
        for b, name in sorted(self.server.objects):
            if b != bucket or not name.startswith(prefix):
                continue
            if name < query.get("startOffset", "") or name >= query.get("endOffset", "\U0010ffff"):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                prefixes.append(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self._resource(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(set(prefixes))}

    def do_POST(self):
        bucket, _, _, query = self._parts()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        name, kind = query.get("name"), query.get("uploadType")
        if kind == "resumable" and "upload_id" not in query:
            path = self.path + f"&upload_id={len(self.server.uploads)}"
            self.server.uploads.append(b"")
            return self._answer(200, location=self.server.url + path)
        if kind == "resumable":
            number = int(query["upload_id"])
            body = self.server.uploads[number] = self.server.uploads[number] + body
            if self.headers["content-range"].endswith("/*"):
                return self._answer(308, range=f"bytes=0-{len(body) - 1}")
        elif kind == "multipart":
            mark = re.search(r'boundary="?([^";]+)', self.headers["content-type"])
            assert mark
            parts = body.split(b"--" + mark[1].encode())
            about, body = (part.lstrip(b"\r\n").split(b"\n\n", 1)[1] for part in parts[1:3])
            name, body = json.loads(about)["name"], body[:-1]
        assert name
        with self.server.lock:
            if bucket == "missing":
                return self._error(404, "The specified bucket does not exist.")
            now = self.server.objects.get((bucket, name), (0, b""))[0]
            if query.get("ifGenerationMatch") not in (None, str(now)):
                return self._error(412, "conditionNotMet")
            self.server.generation += 1
            self.server.objects[bucket, name] = self.server.generation, body
            return self._answer(200, self._resource(bucket, name))

    def do_DELETE(self):
        bucket, _, name, query = self._parts()
        with self.server.lock:
            now = self.server.objects.get((bucket, name), (0, b""))[0]
            if not now:
                return self._error(404, f"No such object: {bucket}/{name}")
            if query.get("ifGenerationMatch") not in (None, str(now)):
                return self._error(412, "conditionNotMet")
            del self.server.objects[bucket, name]
            return self._answer(204)


class FileSystem(fsspec.AbstractFileSystem):
    """What of gcsfs is needed, for where it is not installed."""

    protocol = ("gs", "gcs")

    def _ask(self, method, path, query=(), data=None, upload=""):
        url = f"{os.environ['STORAGE_EMULATOR_HOST']}{upload}/storage/v1/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.read()
        except urllib.error.HTTPError as e:
            raise (FileNotFoundError if e.code == 404 else OSError)(f"{path}: {e}") from e

    def _object(self, path):
        bucket, _, name = self._strip_protocol(path).partition("/")
        return f"b/{bucket}/o/{urllib.parse.quote(name, safe='')}"

    def ls(self, path, detail=True, **_):
        path = self._strip_protocol(path).rstrip("/")
        bucket, _, name = path.partition("/")
        prefix = f"{name}/" if name else ""
        answer = self._ask("GET", f"b/{bucket}/o", {"prefix": prefix, "delimiter": "/"})
        found = json.loads(answer)
        entries = [
            {"name": f"{bucket}/{p.rstrip('/')}", "size": 0, "type": "directory"}
            for p in found["prefixes"]
        ] + [self._entry(item) for item in found["items"]]
        if name and not entries:
            entries = [self._entry(json.loads(self._ask("GET", self._object(path))))]
        return entries if detail else [entry["name"] for entry in entries]

    def _entry(self, item):
        return {
            "name": f"{item['bucket']}/{item['name']}",
            "size": int(item["size"]),
            "generation": item["generation"],
            "type": "file",
        }

    def _open(self, path, mode="rb", **_):
        if "r" in mode:
            return io.BytesIO(self._ask("GET", self._object(path), {"alt": "media"}))
        return _Upload(self, path)

    def rm(self, path, recursive=False, maxdepth=None):
        found = self.find(path) if recursive else [path]
        if not found:
            raise FileNotFoundError(path)
        for name in found:
            self._ask("DELETE", self._object(name))

    def mkdir(self, path, create_parents=True, **_):
        pass

    def makedirs(self, path, exist_ok=False):
        pass


class _Upload(io.BytesIO):
    def __init__(self, files, path):
        super().__init__()
        self.files, self.path = files, path

    def close(self):
        if not self.closed:
            bucket, _, name = self.files._strip_protocol(self.path).partition("/")
            query = {"uploadType": "media", "name": name}
            self.files._ask("POST", f"b/{bucket}/o", query, self.getvalue(), "/upload")
        super().close()


def environment(url):
    """What sends all clients of a process, and of its children, to a server."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,
        "EPATH_USE_TF": "false",
    }


def install(url):
    """Sends gs:// of this process to a server."""
    os.environ.update(environment(url))
    if importlib.util.find_spec("gcsfs"):
        fsspec.config.conf.setdefault("gcs", {})["token"] = "anon"
    else:
        fsspec.register_implementation("gcs", FileSystem, clobber=True)


if (
    __name__ == "__main__"
):  # a command as a process of its own: fake_gcs.py experiments.sweep --flags
    install(os.environ["STORAGE_EMULATOR_HOST"])
    word = sys.argv.pop(1).removeprefix("experiments.")
    main = importlib.import_module(f"yosinski_jax.commands.{word}").main
    importlib.import_module("yosinski_jax.commands.cli").run(main)
