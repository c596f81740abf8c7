"""Folders that nobody lists: whose they are decides whether they may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.checkpoint import CheckpointUploader, Local, collect_orphans
from job.errors import AccessDenied, Fenced
from job.ledger import Checkpoint, Ledger
from job.lifecycle import StopToken
from job.storage import Storage
from tests.ledger.wrapped import Failing, Wrapped


def claim(storage: Storage) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1", conditional_writes=True)


def leave(storage: Storage, name: str) -> None:
    storage.write(f"checkpoints/{name}/state", b"x")


def folders(storage: Storage) -> set[str]:
    return {info.key.split("/")[1] for info in storage.list("checkpoints/")}


def listed(ledger: Ledger, name: str) -> None:
    step, attempt = map(int, name.split("-"))
    checkpoint = Checkpoint(
        step=step, attempt=attempt, key=f"checkpoints/{name}/", manifest_sha256="0" * 64, bytes=1
    )
    ledger.update(lambda record: record.checkpoints.append(checkpoint))


def test_what_dead_attempts_left_goes_and_what_is_listed_stays(storage: Storage) -> None:
    claim(storage)
    ledger = claim(storage)
    for name in ("00000010-001", "00000020-001", "00000030-002", "00000040-002"):
        leave(storage, name)
    leave(storage, "something-else")
    listed(ledger, "00000010-001")
    listed(ledger, "00000030-002")
    assert collect_orphans(storage, ledger) == [
        "checkpoints/00000020-001/",
        "checkpoints/00000040-002/",
    ]
    assert folders(storage) == {"00000010-001", "00000030-002", "something-else"}


def test_who_was_replaced_deletes_nothing(storage: Storage) -> None:
    older = claim(storage)
    leave(storage, "00000010-001")
    claim(storage)
    with pytest.raises(Fenced):
        collect_orphans(storage, older)
    assert folders(storage) == {"00000010-001"}


def test_a_newer_attempts_upload_under_way_is_not_touched(storage: Storage) -> None:
    """It claims right after we have made sure that the run is ours."""
    wrapped = Wrapped(storage)
    older = claim(wrapped)
    leave(storage, "00000010-001")

    def replaced(verb: str, _key: str) -> None:
        if verb == "list":
            wrapped.before = lambda *_: None
            claim(storage)
            leave(storage, "00000010-002")

    wrapped.before = replaced
    collect_orphans(wrapped, older)
    assert folders(storage) == {"00000010-002"}


def test_they_go_once_a_checkpoint_of_our_own_is_durable(
    directory: Storage, tmp_path: Path
) -> None:
    claim(directory)
    ledger = claim(directory)
    leave(directory, "00000010-001")
    folder = tmp_path / "checkpoint-20"
    folder.mkdir()
    (folder / "state").write_text("x")
    stop = StopToken()
    with CheckpointUploader(directory, ledger, stop, keep=3, patience_seconds=0) as uploader:
        assert uploader.settle(60)
        assert folders(directory) == {"00000010-001"}
        uploader.submit(Local(folder, 20))
        assert uploader.settle(60)
    assert folders(directory) == {"00000020-002"}


def test_that_they_can_not_be_removed_is_no_reason_to_end(
    directory: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = Wrapped(directory, before=Failing("list", "checkpoints/", AccessDenied("no listing")))
    ledger = claim(wrapped)
    folder = tmp_path / "checkpoint-20"
    folder.mkdir()
    (folder / "state").write_text("x")
    stop = StopToken()
    with CheckpointUploader(wrapped, ledger, stop, keep=3, patience_seconds=0) as uploader:
        uploader.submit(Local(folder, 20))
        assert uploader.settle(60)
    assert stop.cause is None
    assert "no listing" in caplog.text
