"""A hub of the tests' own: a real HTTP server that speaks as much of the protocol as is asked."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server answers with, and what it was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    """Of every repository."""
    error: tuple[int, str] | None = None
    """Status and X-Error-Code of every answer to a path that `error_on` matches."""
    error_on: str = ""
    hang_up_on: str | None = None
    """The connection is closed on requests whose path matches."""
    fetched: list[str] = field(default_factory=list)
    revisions: set[str] = field(default_factory=set)
    """That were asked for."""
    user: dict[str, object] = field(default_factory=dict)
    """What it says of whoever has the token."""
    refused: str | None = None
    """Posts to paths that match are answered with 403."""
    created: list[dict[str, object]] = field(default_factory=list)
    """Repositories, as they were asked for."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256, on their way into a commit."""
    commits: list[Commit] = field(default_factory=list)


@dataclass
class Commit:
    """One that was pushed."""

    repository: str
    message: str
    files: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def serving() -> Iterator[Hub]:
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        hub, sent = self.server.hub, self.rfile.read(int(self.headers["Content-Length"]))
        if hub.refused is not None and re.search(hub.refused, self.path):
            self._send(403, b"{}", body=True)
        else:
            self._send(200, json.dumps(self._posted(hub, sent)).encode(), body=True)

    def do_PUT(self) -> None:
        assert isinstance(self.server, _Server)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hub.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(200, b"", body=True)

    def _posted(self, hub: Hub, sent: bytes) -> dict[str, object]:
        """Pushing: huggingface.co/docs/hub/api, and git-lfs' batch API for the large files."""
        if self.path == "/api/repos/create":
            asked = json.loads(sent)
            hub.created.append(asked)
            return {"url": f"{hub.url}/{asked.get('organization', 'me')}/{asked['name']}"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(sent)["files"]]
            return {
                "files": [
                    {
                        "path": name,
                        "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for name in names
                ]
            }
        if self.path.endswith("/info/lfs/objects/batch"):
            upload = {"upload": {"href": f"{hub.url}/put"}}
            objects = [one | {"actions": upload} for one in json.loads(sent)["objects"]]
            return {"transfer": "basic", "objects": objects}
        if found := re.fullmatch("/api/models/(.+)/commit/main", self.path):
            hub.commits.append(_commit(hub, found[1], sent))
            return {"commitUrl": f"{hub.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT}
        return {"errors": [], "warnings": []}  # of the card's metadata

    def _answer(self, *, body: bool) -> None:
        assert isinstance(self.server, _Server)
        hub = self.server.hub
        if hub.hang_up_on is not None and re.search(hub.hang_up_on, self.path):
            self.close_connection = True
        elif hub.error is not None and re.search(hub.error_on, self.path):
            status, code = hub.error
            self._send(status, b"{}", body=body, headers={"X-Error-Code": code})
        elif self.path == "/api/whoami-v2":
            self._send(200, json.dumps(hub.user).encode(), body=body)
        elif self.path.startswith("/api/"):
            self._send(200, self._listing(hub), body=body)
        elif (name := self.path.rpartition(f"/resolve/{COMMIT}/")[2]) in hub.files:
            content = hub.files[name]
            etag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            if body:
                hub.fetched.append(name)
            self._send(200, content, body=body, headers=headers)
        else:
            self._send(404, b"{}", body=body, headers={"X-Error-Code": "EntryNotFound"})

    def _listing(self, hub: Hub) -> bytes:
        if found := re.search(r"/(?:tree|revision)/([^?/]+)", self.path):
            hub.revisions.add(found[1])
        if "/tree/" in self.path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in hub.files.items()
            ]
            return json.dumps(entries).encode()
        repository = self.path.removeprefix("/api/models/").split("/revision/")[0]
        siblings = [{"rfilename": name} for name in hub.files]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def _send(
        self, status: int, content: bytes, *, body: bool, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _commit(hub: Hub, repository: str, sent: bytes) -> Commit:
    commit = Commit(repository, "")
    for line in map(json.loads, sent.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            commit.message = value["summary"]
        elif line["key"] == "file":
            commit.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            commit.files[value["path"]] = hub.stored[value["oid"]]
    return commit


_ASK = """
import json, sys
from pathlib import Path
from job.engines.source import ModelSource
from job.errors import JobError
name, cache, revision, *verbs = sys.argv[1:]
answers, beats = [], []
source = ModelSource(name, Path(cache), revision or None, alive=lambda: beats.append(1))
for verb in verbs:
    try:
        folder = getattr(source, verb)()
        answers.append(["folder", 0, sorted(path.name for path in folder.iterdir())])
    except JobError as error:
        answers.append([type(error).__name__, error.exit_code, str(error)])
    print(json.dumps([*answers[-1], len(beats)]), flush=True)
    sys.stdin.readline()
"""


@dataclass
class Answer:
    kind: str
    """`folder`, or the class of the error."""
    exit_code: int
    said: str | list[str]
    beats: int
    """Signs of life so far."""


class Asker:
    """`ModelSource`, in a process whose hub is ours (the library reads HF_ENDPOINT at import)."""

    def __init__(self, hub: Hub, name: str, cache: Path, *verbs: str, revision: str = "") -> None:
        command = [sys.executable, "-c", _ASK, name, str(cache), revision, *verbs]
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_ETAG_TIMEOUT": "5", "HF_HOME": str(cache / "home")}
        self._process = subprocess.Popen(
            command,
            env=env | {"PATH": "", "HF_HUB_DISABLE_XET": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def next(self) -> Answer:
        """The answer to the next verb; the process then waits."""
        assert self._process.stdout is not None
        return Answer(*json.loads(self._process.stdout.readline()))

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def ask(hub: Hub, name: str, cache: Path, verb: str = "model_dir") -> Answer:
    with Asker(hub, name, cache, verb) as asker:
        return asker.next()
