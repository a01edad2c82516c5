"""A hub on a free local port that speaks as much of the Hugging Face protocol as the client needs.

It keeps repositories in memory, serves ranges, takes uploads, and can be told to misbehave.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".bin", ".parquet")
"""Files that the hub keeps in large file storage, with a stated sha256."""
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit)/(.+))?"
)
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""
    private: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        digest = hashlib.sha1(f"{self.head}{sorted(files)}".encode())
        for data in files.values():
            digest.update(data)
        self.head = digest.hexdigest()
        self.revisions[self.head] = dict(files)
        return self.head


@dataclass
class FakeHub:
    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    """Method, path and range of each request."""
    gated: set[str] = field(default_factory=set)
    cut_at: int | None = None
    """The next download of a large file breaks off after so many bytes."""
    dies_when_cut: bool = False
    """And all that is asked later is refused. The small files have gone out by then, so that what
    arrived does not depend on the client's threads."""
    sent: set[str] = field(default_factory=set)
    """Small files that went out whole."""
    news: threading.Condition = field(default_factory=threading.Condition)
    is_down: bool = False
    damages: bool = False
    """Large files arrive with other bytes of the same number."""
    loses_uploads: bool = False

    def add(self, repo_id: str, files: dict[str, bytes], kind: str = "models") -> str:
        return self.repos.setdefault((kind, repo_id), Repo()).commit(files)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serves until the block ends."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(data), "pointerSize": 130}
    return entry


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path} {self.headers.get('Range') or ''}".strip())
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.is_down:
            self.send_json({"error": "down"}, 500)
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            hub.repos.setdefault(
                ("models", name), Repo(private=wanted.get("visibility") == "private")
            )
            self.send_json({"url": f"{hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            slots = [self.slot(wanted) for wanted in json.loads(body)["objects"]]
            self.send_json({"transfer": "basic", "objects": slots})
        elif path.startswith("/upload/"):
            hub.uploads[path.removeprefix("/upload/")] = body
            self.send_json({})
        elif match := _API.fullmatch(path):
            self.api(match[1], match[2], match[3] or "revision", match[4] or "main", body)
        elif match := _RESOLVE.fullmatch(path):
            self.resolve("datasets" if match[1] else "models", *match.group(2, 3, 4))
        else:
            self.send_json({"error": "no such route"}, 404)

    def slot(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/upload/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href, "header": {}}}}

    def api(self, kind: str, repo_id: str, what: str, revision: str, body: bytes) -> None:
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None:
            self.send_json({"error": "?"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif what == "preupload":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.send_json({"files": files})
        elif what == "commit":
            oid = repo.commit(self.committed(body))
            self.send_json(
                {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}", "commitOid": oid}
            )
        else:
            self.listing(repo, repo_id, what, repo.head if revision == "main" else revision)

    def listing(self, repo: Repo, repo_id: str, what: str, revision: str) -> None:
        if revision not in repo.revisions:
            self.send_json({"error": "?"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        entries = {name: _entry(name, data) for name, data in repo.revisions[revision].items()}
        if what == "tree":
            rows = [{"type": "file", "path": name, **entry} for name, entry in entries.items()]
            self.send_json(rows)
            return
        siblings = [{"rfilename": name, **entry} for name, entry in entries.items()]
        self.send_json({"id": repo_id, "sha": revision, "siblings": siblings})

    def committed(self, body: bytes) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile" and not self.hub.loses_uploads:
                files[value["path"]] = self.hub.uploads[value["oid"]]
        return files

    def resolve(self, kind: str, repo_id: str, revision: str, name: str) -> None:
        repo, hub = self.hub.repos[kind, repo_id], self.hub
        if repo_id in hub.gated:
            self.send_json({"error": "?"}, 403, {"X-Error-Code": "GatedRepo"})
            return
        data = repo.revisions[revision][name]
        entry = _entry(name, data)
        is_large = "lfs" in entry
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{entry["lfs"]["oid"] if is_large else entry["oid"]}"')
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        part = bytes(len(data)) if hub.damages and is_large else data
        if hub.cut_at is not None and is_large:
            self.wfile.write(part[start : hub.cut_at])
            if hub.dies_when_cut:
                small = {each for each in repo.revisions[revision] if not each.endswith(LARGE)}
                with hub.news:
                    assert hub.news.wait_for(lambda: small <= hub.sent, timeout=60)
            hub.cut_at, hub.is_down = None, hub.dies_when_cut
            self.close_connection = True
            return
        self.wfile.write(part[start:])
        if not is_large:
            with hub.news:
                hub.sent.add(name)
                hub.news.notify_all()

    def send_json(
        self, record: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
