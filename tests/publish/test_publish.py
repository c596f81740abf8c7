"""The adapter's way into its place: verified, and never over a newer attempt's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from job.errors import Fenced, JobError, Unavailable
from job.ledger import Adapter, Ledger, put
from job.publish import publish, remove_leftovers, seal, verify
from job.storage import Storage
from tests.ledger.wrapped import Failing, Wrapped


def claim(storage: Storage) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1", conditional_writes=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "README.md").write_text("card")
    return made


def published(storage: Storage, ledger: Ledger, folder: Path, *, promoted: bool = True) -> Adapter:
    scratch = folder.with_name("scratch")
    return publish(storage, ledger, folder, step=5, promoted=promoted, scratch=scratch)


def test_it_arrives_whole(storage: Storage, folder: Path) -> None:
    adapter = published(storage, claim(storage), folder)
    assert (adapter.key, adapter.step, adapter.bytes) == ("adapter/", 5, len("weightscard"))
    verify(storage, adapter.key, adapter.manifest_sha256, folder.with_name("scratch"))
    assert {info.key for info in storage.list("adapter/")} == {
        "adapter/README.md",
        "adapter/adapter_model.safetensors",
        "adapter/manifest.json",
    }


def test_the_manifest_comes_last(directory: Storage, folder: Path) -> None:
    """Whoever finds one finds what it names, also where a damaged adapter is published anew."""
    wrapped = Wrapped(directory)
    published(wrapped, claim(wrapped), folder)
    sent = [key for verb, key in wrapped.calls if verb == "upload"]
    assert (len(sent), sent[-1]) == (3, "adapter/manifest.json")


def test_a_candidate_has_a_place_of_its_own(directory: Storage, folder: Path) -> None:
    assert published(directory, claim(directory), folder, promoted=False).key == "candidate/"
    assert list(directory.list("adapter/")) == []


def test_what_a_killed_attempt_left_is_replaced(storage: Storage, folder: Path) -> None:
    storage.write("adapter/README.md", b"half of it")
    published(storage, claim(storage), folder)
    assert storage.read("adapter/README.md")[0] == b"card"


@pytest.mark.parametrize("name", ["README.md", "adapter_model.safetensors", "manifest.json"])
def test_who_is_replaced_between_its_look_and_its_put_changes_nothing(
    storage: Storage, folder: Path, name: str
) -> None:
    wrapped = Wrapped(storage)
    older = claim(wrapped)

    def replaced(verb: str, key: str) -> None:
        if verb == "upload" and key == f"adapter/{name}":
            wrapped.before = lambda *_: None
            claim(storage)
            storage.write(key, b"of the newer attempt")

    wrapped.before = replaced
    with pytest.raises(Fenced):
        published(wrapped, older, folder)
    assert storage.read(f"adapter/{name}")[0] == b"of the newer attempt"


def test_a_lost_answer_is_no_failure(storage: Storage) -> None:
    """The object is there; the second try breaks the condition that the first one met."""
    wrapped = Wrapped(storage)
    ledger = claim(wrapped)

    def lost(verb: str, key: str) -> None:
        if key == "report/report.html":
            wrapped.after = lambda *_: None
            raise Unavailable("the answer was lost")

    wrapped.after = lost
    send = partial(wrapped.write, "report/report.html", b"page")
    with pytest.raises(Unavailable):
        put(wrapped, ledger, "report/report.html", send)
    put(wrapped, ledger, "report/report.html", send)
    assert storage.read("report/report.html")[0] == b"page"


@pytest.mark.parametrize(("times", "survives"), [(1, True), (2, True), (3, False)])
def test_what_is_damaged_on_its_way_is_sent_again(
    directory: Storage, folder: Path, times: int, survives: bool
) -> None:
    wrapped = Wrapped(directory)
    damaged = 0

    def damage(verb: str, key: str) -> None:
        nonlocal damaged
        if verb == "upload" and key.endswith("README.md") and damaged < times:
            damaged += 1
            directory.write(key, b"carb")

    wrapped.after = damage
    ledger = claim(wrapped)
    if survives:
        published(wrapped, ledger, folder)
        assert directory.read("adapter/README.md")[0] == b"card"
    else:
        with pytest.raises(JobError, match="what was read back is not what was sent"):
            published(wrapped, ledger, folder)


def test_an_outage_passes_through(directory: Storage, folder: Path) -> None:
    wrapped = Wrapped(directory, before=Failing("upload", "adapter/", Unavailable("down")))
    with pytest.raises(Unavailable):
        published(wrapped, claim(wrapped), folder)


def test_leftovers_go_and_what_is_ours_stays(directory: Storage, folder: Path) -> None:
    directory.write("adapter/old.bin", b"x")
    adapter = published(directory, claim(directory), folder)
    assert directory.read("adapter/old.bin")[0] == b"x", "not before the record names the adapter"
    remove_leftovers(directory, adapter.key, folder)
    verify(directory, adapter.key, adapter.manifest_sha256, folder.with_name("scratch"))
    assert "adapter/old.bin" not in {info.key for info in directory.list("adapter/")}


def test_one_command_checks_every_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a b.txt").write_text("x")
    seen: dict[str, str] = {}

    def state(digests: Mapping[str, str]) -> Mapping[str, object]:
        seen.update(digests)
        return {"subject": list(digests)}

    seal(folder, state)
    seal(folder, state)  # again, as after a failed upload: it doesn't speak of itself
    assert set(seen) == {"README.md", "adapter_model.safetensors", "sub/a b.txt"}
    assert json.loads((folder / "provenance.intoto.json").read_bytes())["subject"] == sorted(seen)
    assert _sha256sum(folder) == {
        "README.md: OK",
        "adapter_model.safetensors: OK",
        "provenance.intoto.json: OK",
        "sub/a b.txt: OK",
    }
    (folder / "README.md").write_text("other")
    with pytest.raises(subprocess.CalledProcessError):
        _sha256sum(folder)


def _sha256sum(folder: Path) -> set[str]:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    found = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return set(found.stdout.splitlines())
