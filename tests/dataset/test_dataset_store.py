"""The store on the work volume: whole or not there, mapped instead of held, full disks named."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest

from job.dataset import Sample
from job.dataset.store import ROW, Samples, Store, StoreWriter
from job.dataset.tokens.samples import Encoded
from job.errors import OutOfDisk


def sample(*ids: int) -> Sample:
    return Sample(np.array(ids, dtype=np.int32), np.array([-100, *ids[1:]], dtype=np.int32))


SAMPLES = [sample(1, 2, 3), sample(4), sample(5, 6)]


def filled(folder: Path, key: str = "key") -> Store:
    rows = np.zeros(3, dtype=ROW)
    rows["tokens"] = [3, 1, 2]
    rows["line"] = [1, 2, 2**40]
    with StoreWriter(folder) as writer:
        writer.append(Encoded.of(SAMPLES[:2]), rows[:2])
        writer.append(Encoded.of(SAMPLES[2:]), rows[2:])
        return writer.complete(key, {"a": 1})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    store = Store.open(tmp_path / "store", "key")
    assert store is not None
    assert store.notes == {"a": 1}
    assert store.rows["line"].tolist() == [1, 2, 2**40]
    for n, expected in enumerate(SAMPLES):
        assert store.sample(n).input_ids.tolist() == expected.input_ids.tolist()
        assert store.sample(n).labels.tolist() == expected.labels.tolist()
    some = Samples(store, np.array([2, 0]))
    assert [len(one.input_ids) for one in some] == [2, 3]
    assert [len(one.input_ids) for one in some[1:]] == [3]
    assert isinstance(store.columns[0], np.memmap)


def test_a_store_of_other_data_is_not_taken(tmp_path: Path) -> None:
    filled(tmp_path, "one")
    assert Store.open(tmp_path, "other") is None
    assert Store.open(tmp_path / "nowhere", "one") is None


@pytest.mark.parametrize("name", ["ids", "labels", "rows"])
def test_a_damaged_store_is_not_taken(name: str, tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert Store.open(tmp_path, "key") is None
    path.unlink()
    assert Store.open(tmp_path, "key") is None


def test_a_store_that_was_never_completed_is_not_taken(tmp_path: Path) -> None:
    filled(tmp_path)
    with StoreWriter(tmp_path) as writer:  # empties what was there
        writer.append(Encoded.of(SAMPLES), np.zeros(3, dtype=ROW))
    assert Store.open(tmp_path, "key") is None
    (tmp_path / "complete.json").write_text('{"key": "key"')
    assert Store.open(tmp_path, "key") is None


def test_an_empty_store(tmp_path: Path) -> None:
    with StoreWriter(tmp_path) as writer:
        store = writer.complete("key", None)
    assert len(store.rows) == 0
    assert len(Samples(store, np.arange(0))) == 0
    assert Store.open(tmp_path, "key") is not None


def test_a_record_for_each_sample(tmp_path: Path) -> None:
    with StoreWriter(tmp_path) as writer, pytest.raises(ValueError, match="2 rows for 3 samples"):
        writer.append(Encoded.of(SAMPLES), np.zeros(2, dtype=ROW))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """/dev/full refuses every write as a full disk does."""
    with StoreWriter(tmp_path) as writer:
        writer._files["ids"].close()
        writer._files["ids"] = io.BufferedWriter(io.FileIO("/dev/full", "wb"), 8)
        with pytest.raises(OutOfDisk, match="FORGE_WORK_DIR: no space left") as error:
            writer.append(Encoded.of(SAMPLES), np.zeros(3, dtype=ROW))
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
