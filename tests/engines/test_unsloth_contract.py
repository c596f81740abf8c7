"""What we give to Unsloth, against the real packages of the locked GPU set.

The smallest set that can be imported beside a CPU build of torch: Unsloth's two packages and
pillow (40 MB). Triton's 200 MB of GPU kernels are left out, see `unsloth_probe`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from job.config import Settings
from job.engines import UnslothEngine, prepare_environment
from job.engines.unsloth import OFFLINE, from_pretrained_arguments, get_peft_model_arguments
from job.profiles import PROFILES
from job.training.build import training_arguments

ROOT = Path(__file__).parents[2]
PACKAGES = ("unsloth", "unsloth-zoo", "pillow")

pytestmark = pytest.mark.slow


def requirements() -> str:
    """The locked entries of those packages, with their hashes."""
    lock = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8")
    entries = {
        name: re.search(rf"^{name}==(?:.*\\\n)*.*\n", lock, flags=re.MULTILINE) for name in PACKAGES
    }
    assert all(entries.values()), entries
    return "".join(entry.group() for entry in entries.values() if entry)


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with the packages: installed once, renamed into its place once it is whole."""
    wanted = requirements()
    version = re.findall(r"^unsloth==(\S+)", wanted, flags=re.MULTILINE)[0]
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = ROOT / ".cache" / f"unsloth-{version}-{python}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name) as scratch:
            install(wanted, Path(scratch))
            try:
                (Path(scratch) / "site").rename(folder)
            except OSError:  # another run was faster
                assert folder.is_dir()
    return folder


def install(wanted: str, scratch: Path) -> None:
    lock = scratch / "requirements.txt"
    lock.write_text(wanted, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes"]
    command += ["--target", str(scratch / "site"), "--requirement", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    # Unsloth's own application and its web pages: three quarters of the files.
    shutil.rmtree(scratch / "site" / "studio", ignore_errors=True)


def run(
    packages: Path, home: Path, command: list[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(home / "compiled"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)]),
    }
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=env | variables,
        cwd=home,
        timeout=240,
    )


def sft_arguments() -> dict[str, Any]:
    """All that a run on a GPU gives to `SFTConfig`."""
    settings = Settings(run_id="x", dataset_uri=("/x.jsonl",), output_uri="/out")
    hyperparameters = PROFILES["max_quality"]
    arguments = training_arguments(hyperparameters, settings, Path("out"), evaluates=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        return arguments | UnslothEngine().training_arguments()


ON_A_CPU = {"use_cpu": True, "bf16": False, "fp16": False}
"""What `SFTConfig` would refuse here, as a GPU is asked for."""


@pytest.fixture(scope="module")
def found(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the real packages are, once patched as on a GPU."""
    probe = Path(__file__).with_name("unsloth_probe.py")
    home = tmp_path_factory.mktemp("unsloth")
    given = json.dumps(sft_arguments() | ON_A_CPU)
    done = run(packages, home, [str(probe), given], UNSLOTH_ALLOW_CPU="1")
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_packages_are_those_of_the_lock(found: dict[str, Any]) -> None:
    assert f"unsloth=={found['versions']['unsloth']} " in requirements()
    assert f"unsloth-zoo=={found['versions']['unsloth_zoo']} " in requirements()


def test_the_lock_keeps_to_what_unsloth_allows(packages: Path) -> None:
    """An upgrade of any pin past its metadata's caps would break an image that is built."""
    lock = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock, flags=re.MULTILINE))
    checked = set()
    for distribution in Distribution.discover(path=[str(packages)]):
        for requirement in map(Requirement, distribution.requires or ()):
            name = canonicalize_name(requirement.name)
            on_linux = {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
            if requirement.marker and not requirement.marker.evaluate(on_linux):
                continue
            if name in locked:
                checked.add(name)
                found = f"{distribution.name} wants {requirement}, {name}=={locked[name]} is locked"
                assert requirement.specifier.contains(locked[name]), found
    assert {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"} <= checked


def test_the_variables_that_we_set_are_read_by_it(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("UNSLOTH_")]:
        monkeypatch.delenv(name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", environ := dict(os.environ))
        prepare_environment(tmp_path)
    ours = {name for name in environ if name.startswith("UNSLOTH_")}
    assert len(ours) == 4
    sources = [p for name in ("unsloth", "unsloth_zoo") for p in (packages / name).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sources)
    assert [name for name in sorted(ours) if f'"{name}"' not in text] == []


def test_loading_offline_is_understood(found: dict[str, Any]) -> None:
    """It has no name in the signature: Unsloth reads it out of its keywords."""
    assert list(OFFLINE) == ["local_files_only"]
    assert found["reads_local_files_only"]


def test_every_argument_of_from_pretrained_is_one_of_its_own(
    found: dict[str, Any], tmp_path: Path
) -> None:
    """It takes `**kwargs` too: a misspelled name would be swallowed."""
    (tmp_path / "config.json").write_text("{}")
    given = from_pretrained_arguments(tmp_path, PROFILES["fast_dev"])
    assert set(given) - set(found["from_pretrained"]) == set()


def test_every_argument_of_get_peft_model_is_one_of_its_own(found: dict[str, Any]) -> None:
    given = get_peft_model_arguments(PROFILES["fast_dev"])
    assert set(given) - set(found["get_peft_model"]) == set()


def test_every_training_argument_is_one_of_the_patched_config(found: dict[str, Any]) -> None:
    assert set(sft_arguments()) - set(found["config"]) == set()


def test_the_patched_config_keeps_what_it_is_given(found: dict[str, Any]) -> None:
    given = json.loads(json.dumps(sft_arguments() | ON_A_CPU))
    given["report_to"] = []  # its form of "none"
    assert found["made"] == given


def test_the_trainer_is_the_patched_one_and_ours_is_built_on_it(found: dict[str, Any]) -> None:
    assert found["trainer"] == "UnslothSFTTrainer"
    assert found["subclass"][:2] == ["JobTrainer", "UnslothSFTTrainer"]


def test_compiled_kernels_stay_on_the_work_volume(found: dict[str, Any]) -> None:
    assert found["inductor_cache"] == "/scratch/cache/torchinductor"


def test_a_model_is_trained_whose_tool_calls_have_untrained_tokens(found: dict[str, Any]) -> None:
    """Unsloth excuses Qwen2.5-Coder for them, by the hub's name."""
    refused, excused = found["untrained_tokens"]
    assert "Untrained tokens in rows [[0]]" in refused
    assert excused == ""


def test_a_trainer_that_was_not_patched_is_refused(found: dict[str, Any]) -> None:
    assert "UNSLOTH_COMPILE_LOCATION" in found["unpatched"]
    assert "SFTTrainer" in found["unpatched"]


def test_the_order_of_imports_in_a_run_is_no_reason_for_a_warning(found: dict[str, Any]) -> None:
    assert [text for text in found["warnings"] if "imported before" in text] == []


def test_without_an_accelerator_the_setting_is_refused(packages: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from job.engines import UnslothEngine\n"
        "from job.errors import SettingsError; from job.profiles import PROFILES\n"
        "try: UnslothEngine().load(Path('/nowhere'), PROFILES['fast_dev'])\n"
        "except SettingsError as error: print(error.exit_code, error)"
    )
    done = run(packages, tmp_path, ["-c", code], CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "78 FORGE_ENGINE: unsloth: " in done.stdout
    assert "FORGE_ENGINE=reference" in done.stdout
