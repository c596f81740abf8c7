"""As much of an API server as `kubectl get` asks: one Job, its pods and events, over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.k8s.chart import Manifest, tool


def _resources(version: str, **kinds: str) -> Manifest:
    found = [
        {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind}
        for name, kind in kinds.items()
    ]
    listed = {"kind": "APIResourceList", "groupVersion": version}
    return listed | {"resources": [one | {"verbs": ["get", "list"]} for one in found]}


_BATCH = {"groupVersion": "batch/v1", "version": "v1"}
_GROUP = {"name": "batch", "versions": [_BATCH], "preferredVersion": _BATCH}
_DISCOVERY: dict[str, Manifest] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
    "/api/v1": _resources("v1", pods="Pod", events="Event"),
    "/apis/batch/v1": _resources("batch/v1", jobs="Job"),
}


@dataclass
class Cluster:
    """What it holds, and which requests reached it."""

    job: Manifest
    pods: list[Manifest] = field(default_factory=list)
    events: list[Manifest] = field(default_factory=list)
    ends_after: int | None = None
    """After how many requests the Job is complete."""
    hidden: bool = False
    """Whether who asks may not read events."""
    deny: list[bool] = field(default_factory=list)
    """Which of the next requests for the Job find that the credentials have expired."""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, target: str) -> tuple[int, Manifest]:
        path = urlparse(target).path
        if path in _DISCOVERY:
            return 200, _DISCOVERY[path]
        self.asked.append(target)
        if path == f"/apis/batch/v1/namespaces/ml/jobs/{self.job['metadata']['name']}":
            return self._denied() if self.deny and self.deny.pop(0) else (200, self._job())
        if path == "/api/v1/namespaces/ml/pods":
            [selector] = parse_qs(urlparse(target).query)["labelSelector"]
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": self._selected(selector)}
        if path == "/api/v1/namespaces/ml/events":
            return self._events(parse_qs(urlparse(target).query)["fieldSelector"][0])
        return 404, _status(404, "NotFound", f"{path} not found")

    def _events(self, selector: str) -> tuple[int, Manifest]:
        if self.hidden:
            return 403, _status(403, "Forbidden", "events is forbidden")
        wanted = [part.partition("=")[::2] for part in selector.split(",")]
        found = [e for e in self.events if all(_field(e, f) == value for f, value in wanted)]
        return 200, {"kind": "EventList", "apiVersion": "v1", "items": found}

    def _job(self) -> Manifest:
        if self.ends_after is not None:
            self.ends_after -= 1
            if self.ends_after < 0:
                return job_of(self.job["metadata"]["name"], "Complete")
        return self.job

    def _denied(self) -> tuple[int, Manifest]:
        return 401, _status(401, "Unauthorized", "Unauthorized")

    def _selected(self, selector: str) -> list[Manifest]:
        name, _, value = selector.partition("=")
        return [pod for pod in self.pods if pod["metadata"]["labels"].get(name) == value]


def _field(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def _status(code: int, reason: str, message: str) -> Manifest:
    failed = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return failed | {"code": code, "reason": reason, "message": message}


def job_of(name: str, *conditions: str, **pods: int) -> Manifest:
    """A Job of which these are true, and that has so many `active` or `failed` pods."""
    found = [{"type": condition, "status": "True"} for condition in conditions]
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "ml"}}
    return head | {"status": {"conditions": found, **pods}}


def event_of(job: str, minute: int, message: str, reason: str = "FailedCreate") -> Manifest:
    """What the Job's controller said of it."""
    metadata = {"name": f"{job}.{minute}", "namespace": "ml"}
    head = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "reason": reason}
    about = {"involvedObject": {"kind": "Job", "name": job, "namespace": "ml"}}
    return head | about | {"message": message, "lastTimestamp": f"2026-11-27T10:{minute:02d}:00Z"}


def pod_of(job: str, minute: int, codes: Mapping[str, int]) -> Manifest:
    """One of its pods, of that age: container → exit code, sorted by name as the kubelet does."""
    metadata: dict[str, Any] = {"name": f"{job}-{minute}", "namespace": "ml"}
    metadata |= {"labels": {"batch.kubernetes.io/job-name": job}}
    metadata |= {"creationTimestamp": f"2026-11-27T10:{minute:02d}:00Z"}
    ended = [
        {
            "name": name,
            "state": {
                "terminated": {"exitCode": code, "message": f"exit {code}: what {name} said"}
            },
        }
        for name, code in sorted(codes.items())
    ]
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    return head | {"status": {"containerStatuses": ended}}


def _ended(container: str, code: int) -> Manifest:
    terminated = {"exitCode": code, "message": f"exit {code}: what {container} said"}
    return {"name": container, "state": {"terminated": terminated}}


@contextmanager
def serving(cluster: Cluster) -> Iterator[Cluster]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = cluster.answer(self.path)
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        cluster.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield cluster
        finally:
            server.shutdown()


def environment(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Of a shell in which the real `kubectl` asks this one."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": cluster.url}}],
        "users": [{"name": "test", "user": {"token": "test"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    beside = Path(tool("kubectl")).parent
    path = os.pathsep.join([str(beside), "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}
