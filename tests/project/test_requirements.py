"""The locked sets agree with pyproject.toml, with each other, and with what Unsloth allows."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("cpu", "dev", "gpu")
EXTRAS = {"cpu": ("cpu",), "dev": ("cpu", "demo", "dev"), "gpu": ("gpu",)}

UNSLOTH = "2026.10.7"
UNSLOTH_ALLOWS = {
    "bitsandbytes": ">=0.45.5,!=0.46.0,!=0.48.0",
    "datasets": ">=3.4.1,<5.0.0,!=4.0.*,!=4.1.0,!=4.4.*,!=4.5.0",
    "peft": ">=0.18.0,!=0.11.0",
    "torch": ">=2.4.0,<2.15.0",
    "torchao": ">=0.13.0",
    "transformers": ">=4.52.4,<=5.17.0,!=5.0.0,!=5.1.0",
    "trl": ">=0.18.2,<=1.15.0,!=0.19.0",
}
"""From the metadata of that release (and of unsloth_zoo); renewed together with its pin."""


def locked(name: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def declared(*extras: str) -> list[Requirement]:
    table = project()
    lines = list(table["dependencies"])
    for extra in extras:
        lines += table["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_what_the_project_declares(lock: str) -> None:
    versions = locked(lock)
    if lock != "gpu":
        versions |= locked("cpu") | locked("torch-cpu")
    wrong = [
        str(requirement)
        for requirement in declared(*EXTRAS[lock])
        if (version := versions.get(canonicalize_name(requirement.name))) is None
        or version not in requirement.specifier
    ]
    assert wrong == [], "run make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_a_hash_for_every_package_and_names_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    entries = text.replace("\\\n", "").splitlines()
    pins = [entry for entry in entries if entry and not entry.startswith("#")]
    assert len(pins) > 50
    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []
    assert "://" not in text


def test_cpu_lock_leaves_torch_and_cuda_out() -> None:
    names = locked("cpu") | locked("dev")
    assert [name for name in names if name in ("torch", "triton") or "nvidia" in name] == []


def test_dev_lock_holds_only_what_the_cpu_image_does_without() -> None:
    assert locked("cpu").keys() & locked("dev").keys() == set()


def test_both_locks_have_the_same_version_of_what_they_share() -> None:
    cpu, gpu = locked("cpu") | locked("torch-cpu"), locked("gpu")
    shared = cpu.keys() & gpu.keys()
    assert {"transformers", "trl", "peft", "torch", "tokenizers"} <= shared
    assert {name: (cpu[name], gpu[name]) for name in shared if cpu[name] != gpu[name]} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_keep_the_measured_versions(lock: str) -> None:
    pins, versions = locked("pins"), locked(lock)
    assert {name: versions[name] for name in pins.keys() & versions.keys()} == {
        name: pins[name] for name in pins.keys() & versions.keys()
    }
    assert locked("gpu").keys() >= pins.keys()


@pytest.mark.parametrize("package", UNSLOTH_ALLOWS)
def test_gpu_lock_stays_inside_what_unsloth_allows(package: str) -> None:
    versions = locked("gpu")
    assert str(versions["unsloth"]) == UNSLOTH, "renew UNSLOTH_ALLOWS from its metadata"
    assert versions[package] in SpecifierSet(UNSLOTH_ALLOWS[package])


def test_every_third_party_import_is_declared() -> None:
    names = {canonicalize_name(r.name) for r in declared(*project()["optional-dependencies"])}
    distributions = packages_distributions()
    undeclared = {
        module: sorted(files)
        for module, files in third_party_imports().items()
        if not names & {canonicalize_name(d) for d in distributions.get(module, [module])}
    }
    assert undeclared == {}


def third_party_imports() -> dict[str, set[str]]:
    """Top-level module → the files of the package that import it, anywhere in them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "job").rglob("*.py"):
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            if module != "job" and module not in sys.stdlib_module_names:
                found.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    return found


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Names of imported top-level modules, but not those only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from imported_modules(node)
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]
