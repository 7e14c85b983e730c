"""Cloud Storage on loopback: `gcp-storage-emulator` with the preconditions that it leaves out.

In: names of buckets. Out: an address for `STORAGE_EMULATOR_HOST`, and what lies in the buckets.

By itself the emulator ignores `ifGenerationMatch`: of sixteen writers that each create one object, all win. Here each
request is judged and performed under one lock, so that exactly one does. A precondition that is not judged here is
answered 501, never ignored. Answers that the emulator leaves bare are filled in as Cloud Storage documents them:
the texts of 404, the generation and the checksum of a download, the metadata that a rewrite gives its target.
"""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial, partialmethod
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.handlers import buckets as emulated_buckets
from gcp_storage_emulator.server import RequestHandler, Router, _read_data
from gcp_storage_emulator.storage import Storage

LOOPBACK: Final = "127.0.0.1"

_OBJECT: Final = re.compile(
    r"(?:/download)?(?:/storage/v1)?/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)"
    r"(?:/(?:rewriteTo|copyTo)/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)|/(?P<compose>compose))?"
)
_UPLOAD: Final = re.compile(r"(?:/upload)?(?:/storage/v1)?/b/(?P<bucket>[^/]+)/o")
_BUCKET: Final = re.compile(r"/b/(?P<bucket>[^/]+)")

_JUDGED: Final = {"ifGenerationMatch", "ifSourceGenerationMatch"}
_REPLACED: Final = ("contentType", "metadata", "cacheControl", "contentDisposition", "contentLanguage")
"""Fields of an object that the body of a rewrite replaces as a whole."""


class Refusal(NamedTuple):
    """Why a request is not performed."""

    status: HTTPStatus
    message: str
    reason: str


class StorageEmulator:
    """A running emulator; see `running_storage`. Its verbs may be called from any thread."""

    def __init__(self, url: str, storage: Storage, lock: threading.Lock) -> None:
        self.url = url
        self._storage = storage
        self._lock = lock

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that is there stays as it is."""
        with self._lock:
            emulated_buckets.create_bucket(name, self._storage)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket: name to bytes, in the order of names."""
        with self._lock:
            names = sorted(self._storage.objects.get(bucket, {}))
            return {name: self._storage.get_file(bucket, name) for name in names}

    def resource(self, bucket: str, name: str) -> Mapping[str, Any]:
        """What Cloud Storage says of an object: `generation`, `contentType`, `metadata`, `crc32c` and more."""
        with self._lock:
            found: Mapping[str, Any] = self._storage.get_file_obj(bucket, name)
            return dict(found)

    def clear(self, bucket: str) -> None:
        """Remove every object of a bucket."""
        with self._lock:
            for name in list(self._storage.objects.get(bucket, {})):
                self._storage.delete_file(bucket, name)


@contextmanager
def running_storage(*buckets: str, port: int = 0) -> Iterator[StorageEmulator]:
    """An emulator on loopback with empty buckets, ready when the block is entered; port 0 takes a free one."""
    storage, lock = Storage(use_memory_fs=True), threading.Lock()
    server = _Server((LOOPBACK, port), partial(_Handler, storage, lock))
    emulator = StorageEmulator(f"http://{LOOPBACK}:{server.server_address[1]}", storage, lock)
    for bucket in buckets:
        emulator.create_bucket(bucket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="storage emulator")
    thread.start()
    try:
        yield emulator
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a burst of connections must wait, not be reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away in the middle is what the tests of faults do on purpose.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Reads one request whole, then judges and performs it under the lock."""

    rfile: Any
    wfile: Any

    def __init__(self, storage: Storage, lock: threading.Lock, *args: Any) -> None:
        self._lock = lock
        self._headers_more: dict[str, str] = {}
        super().__init__(storage, *args)

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def end_headers(self) -> None:
        for name, value in self._headers_more.items():
            self.send_header(name, value)
        super().end_headers()

    def _perform(self, method: str) -> None:
        if self.headers.get("Transfer-Encoding"):
            self._refuse(Refusal(HTTPStatus.LENGTH_REQUIRED, "Send a Content-Length.", "lengthRequired"))
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request, answer = _Request(method, self.path, body, self), io.BytesIO()
        reader, writer = self.rfile, self.wfile
        self.rfile, self.wfile = io.BytesIO(body), answer
        try:
            with self._lock:
                self._answer(request, answer)
        finally:
            self.rfile, self.wfile = reader, writer
        self.wfile.write(answer.getvalue())  # not under the lock: a client may be slow to read

    def _answer(self, request: _Request, answer: io.BytesIO) -> None:
        refusal = request.refusal(self.storage)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._headers_more = request.headers_more(self.storage)
        Router(self).handle(request.method)
        status = int(answer.getvalue().split(b" ", 2)[1])
        self._headers_more = {}
        if status == HTTPStatus.NOT_FOUND and answer.getvalue().endswith(b"\r\n\r\n"):
            answer.seek(0)
            answer.truncate()
            self._refuse(request.not_found(self.storage))
        elif status == HTTPStatus.OK and request.is_rewrite:
            answer.seek(0)
            answer.truncate()
            self._send(HTTPStatus.OK, request.rewritten(self.storage))

    do_GET = partialmethod(_perform, "GET")  # noqa: N815  # the name that http.server looks for
    do_POST = partialmethod(_perform, "POST")  # noqa: N815  # the name that http.server looks for
    do_PUT = partialmethod(_perform, "PUT")  # noqa: N815  # the name that http.server looks for
    do_PATCH = partialmethod(_perform, "PATCH")  # noqa: N815  # the name that http.server looks for
    do_DELETE = partialmethod(_perform, "DELETE")  # noqa: N815  # the name that http.server looks for

    def _refuse(self, refusal: Refusal) -> None:
        entry = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
        error = {"code": int(refusal.status), "message": refusal.message, "errors": [entry]}
        self._send(refusal.status, {"error": error})

    def _send(self, status: HTTPStatus, document: Mapping[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Request:
    """One request as Cloud Storage sees it: what it reads, what it would change, and on which conditions."""

    def __init__(self, method: str, path: str, body: bytes, handler: _Handler) -> None:
        parts = urlsplit(path)
        self.method, self.path, self.body = method, parts.path, body
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._handler = handler
        self._object = _OBJECT.fullmatch(parts.path)

    @property
    def is_rewrite(self) -> bool:
        return self._object is not None and self._object["to_name"] is not None and "/rewriteTo/" in self.path

    def refusal(self, storage: Storage) -> Refusal | None:
        """Why the request must not be performed as things lie; `None` when it may be."""
        unjudged = sorted(name for name in self.query if name.startswith("if") and name not in _JUDGED)
        if unjudged or self.path.startswith("/batch/"):
            what = f"the precondition {unjudged[0]}" if unjudged else "a batch"
            return Refusal(HTTPStatus.NOT_IMPLEMENTED, f"The emulator does not judge {what}.", "notImplemented")
        source, target = self._source(), self._target(storage)
        wanted = self.query.get("generation" if target == source else "sourceGeneration")
        if source is not None and wanted is not None and _generation(storage, source) != wanted:
            return self.not_found(storage)
        if not _holds(storage, source, self.query.get("ifSourceGenerationMatch")):
            return _PRECONDITION
        is_absent_read = self.method != "POST" and target == source and _generation(storage, target) == "0"
        if is_absent_read or _holds(storage, target, self.query.get("ifGenerationMatch")):
            return None
        return _PRECONDITION

    def not_found(self, storage: Storage) -> Refusal:
        """The text of a 404: of the bucket where there is none, else of the object."""
        bucket = _BUCKET.search(self.path)
        if bucket is None or unquote(bucket["bucket"]) not in storage.buckets:
            return Refusal(HTTPStatus.NOT_FOUND, "The specified bucket does not exist.", "notFound")
        name = "" if self._object is None else unquote(self._object["name"])
        return Refusal(HTTPStatus.NOT_FOUND, f"No such object: {unquote(bucket['bucket'])}/{name}", "notFound")

    def headers_more(self, storage: Storage) -> dict[str, str]:
        """What Cloud Storage says beside the bytes of a download."""
        is_download = self.path.startswith("/download/") or self.query.get("alt") == "media"
        source = self._source()
        if not is_download or source is None or _generation(storage, source) == "0":
            return {}
        resource = storage.get_file_obj(*source)
        more = {
            "X-Goog-Generation": str(resource["generation"]),
            "X-Goog-Metageneration": str(resource["metageneration"]),
            "X-Goog-Stored-Content-Length": str(resource["size"]),
            "X-Goog-Stored-Content-Encoding": "identity",
        }
        if self._handler.headers.get("Range"):  # on a whole download the emulator says it itself
            more["X-Goog-Hash"] = f"crc32c={resource['crc32c']},md5={resource['md5Hash']}"
        return more

    def rewritten(self, storage: Storage) -> dict[str, Any]:
        """The answer of a rewrite whose body, when there is one, replaces the target's metadata."""
        target = self._target(storage)
        assert target is not None
        resource = storage.get_file_obj(*target)
        given = json.loads(self.body) if self.body else {}
        if given:
            for name in _REPLACED:
                resource.pop(name, None)
            resource |= {name: given[name] for name in _REPLACED if given.get(name) is not None}
            resource["metageneration"] = "1"
            storage.patch_object(*target, resource)
        size = str(resource["size"])
        answer = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size}
        return {**answer, "done": True, "resource": resource}

    def _source(self) -> tuple[str, str] | None:
        if self._object is None or self._object["compose"] is not None:
            return None
        return unquote(self._object["bucket"]), unquote(self._object["name"])

    def _target(self, storage: Storage) -> tuple[str, str] | None:
        """The object that the request reads, changes or makes."""
        if self._object is not None:
            kind = "to_" if self._object["to_name"] is not None else ""
            return unquote(self._object[f"{kind}bucket"]), unquote(self._object[f"{kind}name"])
        upload = _UPLOAD.fullmatch(self.path)
        if upload is None or self.method not in ("POST", "PUT") or "uploadType" not in self.query:
            return None
        if "upload_id" in self.query:
            resource = storage.resumable.get(self.query["upload_id"])
            return None if resource is None else (resource["bucket"], resource["name"])
        return unquote(upload["bucket"]), self.query.get("name") or self._name_in_body()

    def _name_in_body(self) -> str:
        self._handler.rfile = io.BytesIO(self.body)
        data = _read_data(self._handler, {name: [value] for name, value in self.query.items()})
        self._handler.rfile = io.BytesIO(self.body)
        meta = data.get("meta", data) if isinstance(data, dict) else json.loads(data or b"{}")
        return str(meta.get("name", ""))


_PRECONDITION: Final = Refusal(
    HTTPStatus.PRECONDITION_FAILED, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet"
)


def _generation(storage: Storage, place: tuple[str, str] | None) -> str:
    resource = None if place is None else storage.objects.get(place[0], {}).get(place[1])
    return "0" if resource is None else str(resource["generation"])


def _holds(storage: Storage, place: tuple[str, str] | None, expected: str | None) -> bool:
    return expected is None or _generation(storage, place) == expected


def main(arguments: list[str] | None = None) -> None:
    """`python -m engine.testing.storage_emulator BUCKET… [--port N]`: run until interrupted."""
    import argparse
    import contextlib

    parser = argparse.ArgumentParser(description="Cloud Storage on loopback, with generation preconditions.")
    parser.add_argument("buckets", nargs="+", metavar="BUCKET")
    parser.add_argument("--port", type=int, default=9023, help="0 takes a free one (default 9023)")
    given = parser.parse_args(arguments)
    with running_storage(*given.buckets, port=given.port) as emulator, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"STORAGE_EMULATOR_HOST={emulator.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
