"""The CPU image is built for real, looked into, and the job runs in it as a cluster runs it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from job.ledger import read_record
from job.storage import open_storage
from job.version import __version__
from scripts import pip_settings
from tests import environment
from tests.image import built
from tests.image.built import Image
from tests.image.container import MOUNTED, UID, Pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MIB = 1 << 20

UNMET = """
from importlib.metadata import distributions, version
from packaging.requirements import Requirement
for distribution in distributions():
    for line in distribution.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            if version(wanted.name) not in wanted.specifier:
                print(distribution.name, "wants", wanted)
"""
"""What `pip check` would say; pip is not in the image."""

STALE = """
import importlib.util, pathlib, struct
def compiles(source):
    try:
        return compile(source.read_bytes(), source, "exec")
    except SyntaxError:  # for another Python
        return None
for name in ("job", "torch", "transformers"):
    folder = pathlib.Path(importlib.util.find_spec(name).origin).parent
    for source in folder.rglob("*.py"):
        cached = pathlib.Path(importlib.util.cache_from_source(str(source)))
        if not cached.exists():
            if compiles(source):
                print(source, "is not compiled")
        elif struct.unpack("<I", cached.read_bytes()[8:12])[0] != int(source.stat().st_mtime):
            print(source, "was changed since")
"""
"""Modules that would be compiled again at each start: the root is read-only."""

USABLE = """
import getpass, os, pathlib, sys, tempfile
assert os.getpid() == 1 or pathlib.Path("/proc/1/comm").read_text() == "tini\\n"
getpass.getuser()
pathlib.Path.home().joinpath("x").touch()
tempfile.TemporaryFile().close()
for path in sys.argv[1:]:
    try:
        open(path, "w")
    except OSError as error:
        print(path, error.strerror)
print(os.getuid(), os.getgid(), os.getgroups(), os.getcwd(), sys.path[0])
"""


def test_it_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "forge-job"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.created"].startswith("20")
    assert image.config["User"] == "10001:0"
    assert image.config["Entrypoint"] == ["tini", "--", "python", "-m", "job"]
    assert image.config["WorkingDir"] == image.env["FORGE_WORK_DIR"] == "/scratch"
    assert "9464/tcp" in image.config["ExposedPorts"]


def test_nothing_of_the_build_stays(image: Image, image_root: Path) -> None:
    left = ("build", "layer", "wheels", "root/.cache", "root/.config", "etc/pip.conf")
    assert [path for path in left if (image_root / path).exists()] == []
    assert list(image_root.glob("run/secrets/*")) == []
    assert list(image_root.glob("opt/venv/lib/*/site-packages/pip")) == []
    said = json.dumps(image.description)
    private = [value for value in pip_settings.settings().values() if "/" in value]
    assert [value for value in private if value in said] == []


def test_its_size(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    code = image.layers[-1]
    with capsys.disabled():
        print(f"\nimage {image.size / MIB:.0f} MiB, built in {image.built_in:.0f} s; layers:")
        print(", ".join(f"{layer.size / MIB:.2f}" for layer in image.layers), "MiB")
    assert image.size < 2200 * MIB
    assert code.size < 5 * MIB


def test_its_dependencies_fit_together(pod: Pod) -> None:
    assert pod.run("python", "-c", UNMET) == ""


def test_its_modules_are_compiled(pod: Pod) -> None:
    assert pod.run("python", "-c", STALE) == ""


def test_anyone_may_use_it_and_nobody_may_change_it(pod: Pod) -> None:
    paths = ("/x", "/opt/venv/x", "/usr/x", "/mnt/x")
    *refused, last = pod.run("tini", "--", "python", "-c", USABLE, *paths).splitlines()
    assert refused == [f"{path} Read-only file system" for path in paths]
    assert last.startswith(f"{UID} 0 [] /scratch /usr/lib/python")


def test_a_change_of_code_is_one_small_layer(
    image: Image, base_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tmp_path / "context"
    ignored = shutil.ignore_patterns(".git", ".venv", ".cache", ".*_cache", "demo-output")
    shutil.copytree(built.ROOT, context, ignore=ignored)
    with (context / "job" / "version.py").open("a") as file:
        file.write(f"# {tmp_path.name}\n")

    changed = built.build("forge-job-test:changed", base_image, context)
    built.remove(changed.name)

    with capsys.disabled():
        print(f"\nbuilt again in {changed.built_in:.0f} s")
    assert changed.layers[:-1] == image.layers[:-1]
    assert changed.layers[-1] != image.layers[-1]


@pytest.fixture
def pod_env(bucket: str, tmp_path: Path) -> dict[str, str]:
    """A short run; the work folder and the termination log are the image's and the kubelet's."""
    return environment.pod_env(bucket, MOUNTED, tmp_path, rows=70) | {
        "FORGE_LEARNING_RATE": "0.01",
        "FORGE_MAX_STEPS": "16",
        "FORGE_EVAL_MAX_ROWS": "4",
        "FORGE_EVAL_STEPS": "10",
        "FORGE_SAVE_STEPS": "8",
        # On a busy machine the threads of so small a model do little but wait for each other.
        "OMP_NUM_THREADS": "1",
    }


def test_the_job_is_preempted_and_resumes(
    pod: Pod, pod_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    with pod.started(pod_env, tmp_path / "first.log") as job:
        job.wait_until(lambda progress: progress.get("step", 0) >= 3)
        assert Path(f"/proc/{job.pid}/comm").read_text() == "tini\n"
        assert Path(f"/proc/{job.pid}").stat().st_uid == UID
        job.signal(signal.SIGTERM)
        first = job.ended()
    assert first.code == 75, first.log
    assert pod.termination_log.read_text().startswith("exit 75: ")

    with pod.started(pod_env, tmp_path / "second.log") as job:
        second = job.ended()
    assert second.code == 0, second.log
    assert pod.termination_log.read_text().startswith("exit 0: ")

    found = read_record(open_storage(f"{bucket}/out/run"))
    assert found is not None
    record = found[0]
    assert record.status == "succeeded"
    assert [attempt.exit_code for attempt in record.attempts] == [75, 0]
    assert record.adapter is not None
