"""A stand-in for a Hugging Face hub: as much of its HTTP API as push and pull use.

Repositories, commits and large files live in memory. Connections are cut where `cut` says, and
every request is logged. What it answers follows huggingface_hub 2.4 and the git-lfs batch API; it
has no xet storage, so clients run with xet disabled.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_standInTokenOfTheTests"
LARGE = (".safetensors", ".parquet", ".png", ".pt", ".bin")


@dataclass(frozen=True)
class Blob:
    """A file of a commit; `large` ones are known by SHA-256, others by git's SHA-1."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """How a listing shows it."""
        shown = {"type": "file", "path": path, "size": len(self.data), "oid": self.git}
        if self.large:
            shown["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}
        return shown


@dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    head: str = ""

    def commit(self, files: dict[str, Blob]) -> str:
        named = {name: blob.sha256 for name, blob in files.items()}
        made = json.dumps([self.head, sorted(named.items())]).encode()
        self.head = hashlib.sha1(made).hexdigest()
        self.commits[self.head] = files
        return self.head

    @property
    def files(self) -> dict[str, Blob]:
        return self.commits[self.head]


@dataclass
class Cut:
    """The next `times` requests of a kind lose their connection after so many bytes of body."""

    method: str
    part: str
    after: int
    times: int = 1


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.cuts: list[Cut] = []
        self.ignored: set[str] = set()  # paths that a .gitignore there would drop

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name: str, files: dict[str, bytes], kind: str = "model") -> Repo:
        """A public repository that somebody else filled."""
        repo = self.repos[kind, name] = Repo(private=False)
        repo.commit({n: Blob(data, n.endswith(LARGE)) for n, data in files.items()})
        return repo

    def count(self, method: str, part: str = "") -> int:
        """Requests so far."""
        return sum(m == method and part in path for m, path in self.log)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""


class Answer(Exception):
    """An error to send."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        body = self._body(path)
        if body is None:
            return
        try:
            for pattern, method in ROUTES:
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    getattr(self, method)(body, **match.groupdict())
                    return
            raise Answer(404, message="no such page")
        except Answer as wrong:
            headers = {"X-Error-Code": wrong.code, "X-Error-Message": wrong.message}
            self._send(wrong.status, {"error": wrong.message}, headers)

    def _cut(self, path: str) -> Cut | None:
        for cut in self.server.cuts:
            if cut.times and cut.method == self.command and cut.part in path:
                cut.times -= 1
                return cut
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self, path: str) -> bytes | None:
        """The request's body; None if the connection was cut."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.command in ("POST", "PUT") and (cut := self._cut(path)):
            self.rfile.read(min(cut.after, length))
            self._hang_up()
            return None
        return self.rfile.read(length)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.command == "GET" and (cut := self._cut(self.path)):
            self.wfile.write(data[: cut.after])
            self.wfile.flush()
            self._hang_up()
            return
        self.wfile.write(data)

    def _known(self) -> bool:
        """Whether the request carries the right token; a wrong one is an error at once."""
        given = self.headers.get("Authorization")
        if given and given != f"Bearer {TOKEN}":
            raise Answer(401, message="Invalid credentials in Authorization header")
        return bool(given)

    def _repo(self, kind: str, name: str, *, write: bool = False) -> Repo:
        known = self._known()
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and not known):
            # The hub does not tell strangers which repositories exist.
            status = 404 if known else 401
            raise Answer(status, "RepoNotFound", "Repository not found")
        if write and not known:
            raise Answer(401, message="Invalid username or password.")
        if write and name.startswith("stranger/"):
            raise Answer(403, message="Forbidden")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, dict[str, Blob]]:
        commit = repo.head if revision == "main" else revision
        if commit not in repo.commits:
            raise Answer(404, "RevisionNotFound", "Invalid rev id")
        return commit, repo.commits[commit]

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        if not self._known():
            raise Answer(401, message="Invalid username or password.")
        asked = json.loads(body)
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        if (kind, name) in self.server.repos:
            raise Answer(409, message="You already created this repo")
        if name.startswith("stranger/"):
            raise Answer(403, message="You don't have the rights to create under this namespace")
        repo = self.server.repos[kind, name] = Repo(asked.get("visibility") == "private")
        repo.commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n", large=False)})
        self._send(200, {"url": f"{self.server.endpoint}/{name}"})

    def info(self, body: bytes, kind: str, name: str, revision: str | None = None) -> None:
        repo = self._repo(kind, name)
        commit, _ = self._files(repo, revision or "main")
        self._send(200, {"id": name, "sha": commit, "private": repo.private, "tags": []})

    def tree(self, body: bytes, kind: str, name: str, revision: str) -> None:
        _, files = self._files(self._repo(kind, name), revision)
        self._send(200, [blob.entry(path) for path, blob in files.items()])

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        repo, answer = self._repo(kind, name, write=True), []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            known = repo.files.get(path)
            oid = None if known is None else known.sha256 if known.large else known.git
            mode = "lfs" if path.endswith(LARGE) else "regular"
            drop = path in self.server.ignored
            answer.append({"path": path, "uploadMode": mode, "shouldIgnore": drop, "oid": oid})
        self._send(200, {"files": answer})

    def batch(self, body: bytes, name: str, kind: str | None = None) -> None:
        self._repo("dataset" if kind else "model", name, write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            found = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.server.large:
                upload = {"href": f"{self.server.endpoint}/storage/{asked['oid']}"}
                found["actions"] = {"upload": upload}
            objects.append(found)
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, message="another hash")
        self.server.large[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name, write=True)
        files = dict(repo.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.server.large:
                    raise Answer(400, message="a large file is missing")
                files[value["path"]] = Blob(self.server.large[value["oid"]], large=True)
        oid = repo.commit(files)
        self._send(
            200, {"commitUrl": f"{self.server.endpoint}/{name}/commit/{oid}", "commitOid": oid}
        )

    def resolve(
        self, body: bytes, name: str, revision: str, path: str, kind: str | None = None
    ) -> None:
        repo = self._repo("dataset" if kind else "model", name)
        commit, files = self._files(repo, revision)
        if path not in files:
            raise Answer(404, "EntryNotFound", "Entry not found")
        blob = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.git}"', "Accept-Ranges": "bytes"}
        if blob.large:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked:
            self._send(200, blob.data, headers)
            return
        start, size = int(asked[1]), len(blob.data)
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.server.log.append(("RANGE", f"{path} from {start}"))
        self._send(206, blob.data[start:], headers)


_API = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
_PLAIN = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)"
ROUTES = (
    (r"POST /api/validate-yaml", "validate"),
    (r"POST /api/repos/create", "create"),
    (rf"GET {_API}(?:/revision/(?P<revision>[^/]+))?", "info"),
    (rf"GET {_API}/tree/(?P<revision>[^/]+)", "tree"),
    (rf"POST {_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"POST {_API}/commit/(?P<revision>[^/]+)", "commit"),
    (rf"POST {_PLAIN}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /storage/(?P<oid>[0-9a-f]{64})", "store"),
    (rf"(?:GET|HEAD) {_PLAIN}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


@contextlib.contextmanager
def running() -> Iterator[HubServer]:
    """A server in a thread of this process."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub that knows one token, and this process logged in to it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server
