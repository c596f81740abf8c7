"""A Job controller and a kubelet in one process: they run a rendered Job's container here.

What they follow is the manifest's own: its arguments and environment, the failure policy's rules
in their order, the backoff limit, the grace period between SIGTERM and SIGKILL. Source of the
rules: kubernetes.io, "Pod failure policy" and "Pod backoff failure policy".
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.k8s.chart import ROOT, Manifest, env_of, pod_of

Progress = dict[str, Any]
Action = Literal["Ignore", "FailJob", "Count"]
_DEADLINE_SECONDS = 240


@dataclass(frozen=True)
class Disturbance:
    """What befalls a pod once `when` is true of its `/progress`."""

    when: Callable[[Progress], bool]
    signal: signal.Signals = signal.SIGTERM
    disrupted: bool = True
    """Whether the pod gets the DisruptionTarget condition, as an eviction gives it."""


@dataclass(frozen=True)
class Pod:
    """One that has ended."""

    exit_code: int
    """128 and the signal's number where one killed it, as the kubelet reports it."""
    action: Action
    log: str


def run_to_the_end(containers: list[Manifest]) -> list[tuple[int, str]]:
    """Exit code and output of each container, in turn, until one fails: as init containers run."""
    ended = []
    for container in containers:
        done = subprocess.run(
            [sys.executable, "-m", "job", *container["args"]],
            env={**_inherited(), **env_of(container)},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        ended.append((done.returncode, done.stdout + done.stderr))
        if done.returncode:
            break
    return ended


@dataclass
class JobRun:
    """The Job as its status says it in the end."""

    condition: Literal["Complete", "Failed"] = "Failed"
    pods: list[Pod] = field(default_factory=list)

    @property
    def actions(self) -> list[Action]:
        return [pod.action for pod in self.pods]


def run_job(job: Manifest, folder: Path, disturbances: list[Disturbance | None]) -> JobRun:
    """Run it to its end. Each pod in turn meets one of `disturbances`; those after them none."""
    done, failures, waiting = JobRun(), 0, iter(disturbances)
    while True:
        pod = _run_pod(job, folder / f"pod-{len(done.pods)}.log", next(waiting, None))
        done.pods.append(pod)
        if pod.exit_code == 0:
            done.condition = "Complete"
            return done
        failures += pod.action == "Count"
        if pod.action == "FailJob" or failures > job["spec"]["backoffLimit"]:
            return done


def _run_pod(job: Manifest, log: Path, disturbance: Disturbance | None) -> Pod:
    container = pod_of(job)["containers"][0]
    grace = pod_of(job).get("terminationGracePeriodSeconds", 30)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "job", *container["args"]],
            env={**_inherited(), **env_of(container)},
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
        try:
            disrupted = _disturb(process, container, disturbance, grace)
            code = process.wait(_DEADLINE_SECONDS)
        finally:
            process.kill()
    code = 128 - code if code < 0 else code
    return Pod(code, _action(job, code, disrupted), log.read_text())


def _inherited() -> Mapping[str, str]:
    """The store's address and keys, which a Secret would bring, and where Python's parts are."""
    return {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "PATH", "OMP_"))}


def _disturb(
    process: subprocess.Popen[bytes],
    container: Manifest,
    disturbance: Disturbance | None,
    grace: float,
) -> bool:
    """Whether the pod was disrupted, by the time it was signalled."""
    if disturbance is None:
        return False
    if not any(disturbance.when(progress) for progress in _progress(process, container)):
        return False  # it ended before
    process.send_signal(disturbance.signal)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
    return disturbance.disrupted


def _progress(process: subprocess.Popen[bytes], container: Manifest) -> Iterator[Progress]:
    port = container["ports"][0]["containerPort"]
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=10) as answer:
                yield json.loads(answer.read())
        except OSError:
            pass
        time.sleep(0.02)


def _action(job: Manifest, code: int, disrupted: bool) -> Action:
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"values": ()})["values"]
        conditions = [condition["type"] for condition in rule.get("onPodConditions", ())]
        if code in codes or (disrupted and "DisruptionTarget" in conditions):
            action: Action = rule["action"]
            return action
    return "Count"
