"""What must start in a blink imports nothing heavy, not even through somebody else."""

import json
import pkgutil
import subprocess
import sys

import pytest

import job

HEAVY = ("accelerate", "bitsandbytes", "boto3", "datasets", "peft", "torch", "transformers", "trl")

MAY_BE_HEAVY = (
    "job.demo",
    "job.engines",
    "job.evaluation",
    "job.ranks.group",
    "job.ranks.meeting",
    "job.run",
    "job.storage.s3",
    "job.storage.s3_client",
    "job.storage.s3_faults",
    "job.storage.s3_transfer",
    "job.training",
)
"""Modules (and all below them) that train, generate, join ranks, compose those that do, or speak
to S3."""

_PROBE = """
import importlib, json, sys
heavy, names = map(json.loads, sys.argv[1:])
found, seen = {}, set()
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        found[name] = [str(error)]
        continue
    found[name] = sorted(set(heavy) & set(sys.modules) - seen)
    seen |= set(found[name])
print(json.dumps(found))
"""


def light_modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(job.__path__, "job.")]
    return [name for name in names if not any(f"{name}.".startswith(f"{h}.") for h in MAY_BE_HEAVY)]


@pytest.fixture(scope="module")
def heavy_imports() -> dict[str, list[str]]:
    """Module → what importing it, after those before it, brought in; or why it failed."""
    command = [sys.executable, "-c", _PROBE, json.dumps(HEAVY), json.dumps(light_modules())]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", light_modules())
def test_importing_it_brings_in_nothing_heavy(
    name: str, heavy_imports: dict[str, list[str]]
) -> None:
    assert heavy_imports[name] == []


def test_settings_are_read_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import job.config"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "job.config" in imported
    assert imported.isdisjoint(HEAVY)
