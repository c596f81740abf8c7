"""What can be said of the image without building it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from job.engines.unsloth import cache_folders, prepare_environment
from tests.image.built import ROOT
from tests.image.tools import complaints

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stages() -> dict[str, list[str]]:
    """Stage → its instructions, the FROM first, each on one line."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in filter(None, joined.splitlines()):
        if named := re.fullmatch(r"FROM \S+ AS (\S+)", line):
            current = found.setdefault(named[1], [])
        current.append(line)
    return found


def env_of(stage: str) -> dict[str, str]:
    instructions = [x.removeprefix("ENV ") for x in stages()[stage] if x.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in instructions for pair in line.split())


def test_hadolint_is_content() -> None:
    assert complaints("hadolint", "Dockerfile") == ""


def test_an_image_built_on_ours_is_built_as_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)
    (tmp_path / "Dockerfile").write_text(text)
    unpinned = ("--ignore", "DL3013")  # whoever builds it pins
    assert complaints("hadolint", *unpinned, str(tmp_path / "Dockerfile")) == ""
    assert text.splitlines()[-1] == stages()["gpu"][-1], "the user of the pod"
    assert "/opt/venv/bin/python" in text
    assert any("python3 -m venv --without-pip /opt/venv" in line for line in stages()["base"])
    assert _extra("trackers") <= set(text.split())
    adapter = (ROOT / "docs" / "adapter.md").read_text(encoding="utf-8")
    [told] = re.findall(r"with the packages (.*?) installed", adapter)
    assert set(re.findall(r"`(.*?)`", told)) == _extra("gguf")


def _extra(name: str) -> set[str]:
    """The names of its packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split("[^a-z-]", line)[0] for line in project["optional-dependencies"][name]}


def test_the_gpu_image_is_what_is_built_unasked() -> None:
    assert list(stages())[-1] == "gpu"


def test_the_targets_differ_in_their_dependencies_alone() -> None:
    cpu, gpu = stages()["cpu"], stages()["gpu"]
    differ = {one: other for one, other in zip(cpu, gpu, strict=True) if one != other}
    install_torch = differ.pop(cpu[3])
    assert differ == {
        "FROM runtime AS cpu": "FROM compiler AS gpu",
        "COPY requirements/torch-cpu.txt /opt/venv/torch.txt": (
            "COPY --from=lists /lists/torch.txt /opt/venv/torch.txt"
        ),
        "COPY requirements/cpu.txt /opt/venv/rest.txt": (
            "COPY --from=lists /lists/rest.txt /opt/venv/rest.txt"
        ),
    }
    assert cpu[3].partition("/opt/pip/install")[0] == install_torch.partition("if [")[0]
    start, install = stages()["compiler"]
    assert start == "FROM runtime AS compiler"
    assert install.startswith("RUN apt-get update")


def test_every_dependency_but_the_cpu_torch_is_checked_by_its_hash() -> None:
    installs = [
        (name, line)
        for name, lines in stages().items()
        for line in lines
        if "/opt/pip/install --" in line and "--no-index" not in line
    ]
    unchecked = [(name, line) for name, line in installs if "--require-hashes" not in line]
    assert [name for name, _ in unchecked] == ["cpu"]
    assert "torch.txt" in unchecked[0][1]
    assert [name for name, _ in installs] == ["code", "cpu", "cpu", "gpu", "gpu"]
    assert all("--mount=type=secret,id=pip" in line for _, line in installs)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_our_code_comes_last(name: str) -> None:
    layers = [line for line in stages()[name] if line.startswith(("COPY", "RUN"))]
    assert [line for line in layers if "job" in line or "--from=code" in line] == layers[-1:]
    assert layers[-1] == "COPY --from=code /layer/ /"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_numeric_user_and_an_entrypoint_without_a_shell(name: str) -> None:
    assert stages()[name][-1] == "USER 10001:0"
    entrypoint = [x for x in stages()["runtime"] if x.startswith("ENTRYPOINT ")]
    assert [json.loads(x.removeprefix("ENTRYPOINT ")) for x in entrypoint] == [
        ["tini", "--", "python", "-m", "job"]
    ]


def test_all_that_is_written_goes_below_scratch() -> None:
    env = env_of("runtime")
    assert env["FORGE_WORK_DIR"] == env["HOME"] == env["TMPDIR"] == "/scratch"
    assert [x for x in env.values() if x.startswith("/") and not x.startswith("/scratch")] == []


def test_caches_are_where_the_job_itself_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    env = env_of("runtime")
    for name in env.keys() | cache_folders(Path("/")).keys():  # what another test has left, too
        monkeypatch.delenv(name, raising=False)
    before = set(os.environ)
    prepare_environment(Path(env["FORGE_WORK_DIR"]))
    chosen = {name: os.environ[name] for name in set(os.environ) - before}
    for name in chosen:
        monkeypatch.delenv(name)
    assert chosen == {name: env[name] for name in chosen}
    assert len(chosen) > 5


def test_nothing_that_debians_buildah_refuses() -> None:
    assert "--link" not in TEXT
    assert "<<" not in TEXT


def test_nothing_that_is_copied_is_ignored() -> None:
    copies = [line for lines in stages().values() for line in lines if line.startswith("COPY ")]
    sources = [x for line in copies if "--from" not in line for x in line.split()[1:-1]]
    assert len(sources) > 5
    assert [source for source in sources if not let_in(source.rstrip("/"))] == []


@pytest.mark.parametrize("path", [".git", ".venv", "demo-output", "tests", ".env", "k8s/job.yaml"])
def test_the_rest_stays_out(path: str) -> None:
    assert not let_in(path)


def let_in(path: str) -> bool:
    """As .dockerignore says: its last pattern that fits decides."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").rstrip("/")
        if fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
            verdict = line.startswith("!")
    return verdict
