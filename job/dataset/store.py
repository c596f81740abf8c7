"""Tokenized conversations on the work volume, memory-mapped: memory doesn't grow with the data.

A folder holds `ids` and `labels` (int32, one conversation after another) and `rows` (one record a
conversation, `ROW`). It is complete once `complete.json` is there, which names what it was made
from and the SHA-256 of each file: written last, so that a killed process leaves nothing that
could be taken for whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
import orjson

from job.dataset.identity import BANDS
from job.dataset.tokens.samples import Encoded, Ids, Positions, Sample
from job.errors import OutOfDisk, Problem
from job.storage import disk_is_full

ROW: Final = np.dtype(
    [
        ("file", "<u4"),
        ("line", "<u8"),
        ("turns", "<u4"),
        ("tokens", "<u4"),
        ("supervised", "<u4"),
        ("content", "<u8"),
        ("prompt", "<u8"),
        ("id", "<u8"),
        ("bands", "<u4", (BANDS,)),
    ]
)
"""A row that is kept: its place in the data, its turns (fewer than in the data where it was
trimmed), its tokens, and what `job.dataset.identity` says of it."""

Rows = npt.NDArray[np.void]

_IDS, _LABELS, _ROWS, _COMPLETE = "ids", "labels", "rows", "complete.json"
_FILES: Final = (_IDS, _LABELS, _ROWS)


class StoreWriter:
    """Fills a folder that is emptied first. A context manager: leaving it closes the files."""

    def __init__(self, folder: Path) -> None:
        """Raises `OutOfDisk`."""
        self._folder = folder
        with _full_disk_named():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._files = {name: (folder / name).open("wb") for name in _FILES}
        self._hashes = {name: hashlib.sha256() for name in _FILES}

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def append(self, samples: Encoded, rows: Rows) -> None:
        """`rows` has a record of type `ROW` for each sample. Raises `OutOfDisk`."""
        if len(rows) != len(samples):
            raise ValueError(f"{len(rows)} rows for {len(samples)} samples")
        self._write(_IDS, samples.ids)
        self._write(_LABELS, samples.labels)
        self._write(_ROWS, rows)

    def append_rows(self, rows: Rows) -> None:
        """Records alone, where nothing is tokenized. Raises `OutOfDisk`."""
        self._write(_ROWS, rows)

    def complete(self, key: str, notes: Any) -> Store:
        """The store is whole; `notes` is JSON that `Store.notes` gives back. Raises `OutOfDisk`."""
        with _full_disk_named():
            for file in self._files.values():
                file.close()
            commit = {
                "key": key,
                "sha256": {name: digest.hexdigest() for name, digest in self._hashes.items()},
                "notes": notes,
            }
            partial = self._folder / (_COMPLETE + ".part")
            partial.write_bytes(orjson.dumps(commit))
            partial.rename(self._folder / _COMPLETE)
        return Store(self._folder, key, notes)

    def _write(self, name: str, values: npt.NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).data.cast("B") if len(values) else b""
        with _full_disk_named():
            self._files[name].write(data)
        self._hashes[name].update(data)


class Store:
    """A complete folder, mapped for reading."""

    def __init__(self, folder: Path, key: str, notes: Any) -> None:
        self.key = key
        """Names what the store was made from."""
        self.notes = notes
        """What the writer wanted to be kept."""
        self.rows: Rows = _mapped(folder / _ROWS, ROW)
        self._ids: Ids = _mapped(folder / _IDS, np.dtype("<i4"))
        self._labels: Ids = _mapped(folder / _LABELS, np.dtype("<i4"))
        self._bounds = np.zeros(len(self.rows) + 1, dtype=np.int64)
        np.cumsum(self.rows["tokens"], out=self._bounds[1:])

    @staticmethod
    def is_whole(folder: Path) -> bool:
        """Whether its writer has completed it. It may have been damaged since."""
        return (folder / _COMPLETE).exists()

    @classmethod
    def open(cls, folder: Path, key: str) -> Store | None:
        """The store in `folder` if it is whole, undamaged, and made from `key`."""
        try:
            commit = orjson.loads((folder / _COMPLETE).read_bytes())
            if commit["key"] != key:
                return None
            for name in _FILES:
                with (folder / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != commit["sha256"][name]:
                        return None
            return cls(folder, key, commit["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def sample(self, index: int) -> Sample:
        place = slice(self._bounds[index], self._bounds[index + 1])
        return Sample(self._ids[place], self._labels[place])

    @property
    def columns(self) -> tuple[Ids, Ids, Positions]:
        """`input_ids` and `labels` of all rows, and where each row begins (and the last ends)."""
        return self._ids, self._labels, self._bounds


class Samples(Sequence[Sample]):
    """Some rows of a store, in an order of their own."""

    def __init__(self, store: Store, indices: npt.NDArray[np.int64]) -> None:
        self.store = store
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self.store, self.indices[index])
        return self.store.sample(int(self.indices[index]))


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not path.stat().st_size:  # an empty file can't be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


@contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not disk_is_full(error):
            raise
        hint = "give the work volume more room: tokens take about twice the size of the data"
        raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left", hint)) from error
