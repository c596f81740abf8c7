"""Resuming: the newest sound checkpoint, and the next older one for each that is not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from job.checkpoint import MANIFEST_NAME, Rejected, restore_newest, upload_folder
from job.errors import AccessDenied, OutOfDisk, Unavailable
from job.ledger import Checkpoint
from job.storage import Patience, Storage
from tests.ledger.wrapped import Failing, Wrapped


def save(storage: Storage, folder: Path, step: int) -> Checkpoint:
    """A stored checkpoint whose only file says which step it is of."""
    made = folder / f"made-{step}"
    made.mkdir()
    (made / "state").write_text(f"step {step}")
    stored = upload_folder(storage, f"checkpoints/{step:08d}-001/", made, step)
    return Checkpoint(
        step=step,
        attempt=1,
        key=stored.key,
        manifest_sha256=stored.manifest_sha256,
        bytes=stored.bytes,
    )


@pytest.fixture
def three(storage: Storage, tmp_path: Path) -> list[Checkpoint]:
    return [save(storage, tmp_path, step) for step in (10, 20, 30)]


def damage(storage: Storage, checkpoint: Checkpoint, how: str) -> None:
    state, manifest = checkpoint.key + "state", checkpoint.key + MANIFEST_NAME
    if how == "altered":
        storage.write(state, b"step 31")
    elif how == "truncated":
        storage.write(state, b"step")
    elif how == "missing":
        storage.delete([state])
    elif how == "manifest altered":
        storage.write(manifest, storage.read(manifest)[0] + b" ")
    elif how == "manifest missing":
        storage.delete([manifest])
    else:
        storage.delete([state, manifest])


DAMAGES = ["altered", "truncated", "missing", "manifest altered", "manifest missing", "all gone"]


def test_nothing_to_resume_from(storage: Storage, tmp_path: Path) -> None:
    assert restore_newest(storage, [], tmp_path / "restored") is None


def test_the_newest_sound_one(storage: Storage, three: list[Checkpoint], tmp_path: Path) -> None:
    restored = restore_newest(storage, three, tmp_path / "restored")
    assert restored is not None
    assert restored.checkpoint == three[-1]
    assert restored.path.name == "checkpoint-30", "the Trainer reads the step from the name"
    assert (restored.path / "state").read_text() == "step 30"


def test_only_the_one_that_is_used_is_downloaded(
    storage: Storage, three: list[Checkpoint], tmp_path: Path
) -> None:
    wrapped = Wrapped(storage)
    restore_newest(wrapped, three, tmp_path / "restored")
    assert {key for _, key in wrapped.calls} == {
        three[-1].key + "state",
        three[-1].key + MANIFEST_NAME,
    }


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_one_is_passed_over_and_reported(
    storage: Storage,
    three: list[Checkpoint],
    tmp_path: Path,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(storage, three[-1], how)
    reported: list[tuple[Checkpoint, str]] = []
    restored = restore_newest(
        storage, three, tmp_path / "restored", lambda *what: reported.append(what)
    )
    assert restored is not None
    assert restored.checkpoint == three[1]
    assert (restored.path / "state").read_text() == "step 20"
    [(bad, reason)] = reported
    assert bad == three[-1]
    assert reason
    assert not (tmp_path / "restored" / "checkpoint-30").exists()
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert three[-1].key in line.message


@pytest.mark.parametrize("how", DAMAGES)
def test_none_is_sound(storage: Storage, three: list[Checkpoint], tmp_path: Path, how: str) -> None:
    for checkpoint in three:
        damage(storage, checkpoint, how)
    reported: list[int] = []
    found = restore_newest(
        storage, three, tmp_path / "restored", lambda bad, _: reported.append(bad.step)
    )
    assert found is None
    assert reported == [30, 20, 10]


def test_a_manifest_that_the_record_does_not_name_is_not_trusted(
    storage: Storage, three: list[Checkpoint], tmp_path: Path
) -> None:
    """Whole and sound in itself, but not what was committed under that key."""
    save(storage, tmp_path, 40)
    unlisted = three[-1].model_copy(update={"key": "checkpoints/00000040-001/"})
    restored = restore_newest(storage, [three[0], unlisted], tmp_path / "restored")
    assert restored is not None
    assert restored.checkpoint == three[0]


def test_what_an_earlier_try_left_behind_goes(
    storage: Storage, three: list[Checkpoint], tmp_path: Path
) -> None:
    leftover = tmp_path / "restored" / "checkpoint-30" / "optimizer.pt"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"of another run")
    restored = restore_newest(storage, three, tmp_path / "restored")
    assert restored is not None
    assert [path.name for path in restored.path.iterdir()] == ["state"]


def withheld(error: Exception, key: str = "") -> Failing:
    return Failing("download", key, *[error] * 100)


def test_an_outage_is_waited_out(storage: Storage, three: list[Checkpoint], tmp_path: Path) -> None:
    wrapped = Wrapped(storage, before=Failing("download", "00000030", *[Unavailable("down")] * 3))
    patiently = Patience(3600, pause=lambda _seconds: None)
    restored = restore_newest(
        wrapped,
        three,
        tmp_path / "restored",
        lambda *_: pytest.fail("blamed"),
        patiently=patiently,
    )
    assert restored is not None
    assert restored.checkpoint == three[-1]


@pytest.mark.parametrize("error", [Unavailable("500 each time"), AccessDenied("its key is gone")])
def test_one_that_storage_withholds_is_passed_over_once_an_older_one_is_here(
    storage: Storage, three: list[Checkpoint], tmp_path: Path, error: Exception
) -> None:
    blamed: list[tuple[int, str]] = []
    wrapped = Wrapped(storage, before=withheld(error, "00000030"))
    restored = restore_newest(
        wrapped,
        three,
        tmp_path / "restored",
        lambda checkpoint, reason: blamed.append((checkpoint.step, reason)),
    )
    assert restored is not None
    assert restored.checkpoint == three[1]
    assert blamed == [(30, str(error))]


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no")])
def test_where_all_are_withheld_it_is_storage_that_fails(
    storage: Storage, three: list[Checkpoint], tmp_path: Path, error: Exception
) -> None:
    wrapped = Wrapped(storage, before=withheld(error))
    with pytest.raises(type(error)):
        restore_newest(wrapped, three, tmp_path / "restored", lambda *_: pytest.fail("blamed"))


def test_a_full_disk_is_nobody_elses_fault(
    storage: Storage, three: list[Checkpoint], tmp_path: Path
) -> None:
    wrapped = Wrapped(storage, before=Failing("download", "00000030", OutOfDisk("full")))
    with pytest.raises(OutOfDisk):
        restore_newest(wrapped, three, tmp_path / "restored", lambda *_: pytest.fail("blamed"))


def test_one_that_arrives_and_can_not_be_loaded_is_passed_over(
    storage: Storage, three: list[Checkpoint], tmp_path: Path
) -> None:
    blamed: list[tuple[int, str]] = []

    def check(path: Path) -> None:
        if (path / "state").read_text() == "step 30":
            raise Rejected("optimizer.pt can't be loaded")

    restored = restore_newest(
        storage,
        three,
        tmp_path / "restored",
        lambda checkpoint, reason: blamed.append((checkpoint.step, reason)),
        check=check,
    )
    assert restored is not None
    assert restored.checkpoint == three[1]
    assert blamed == [(30, "optimizer.pt can't be loaded")]
    assert not (tmp_path / "restored" / "checkpoint-30").exists()
