"""Files for `LocalStorage`: seen whole or not at all, hashed, and their faults by our names."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Final

from job.errors import AccessDenied, JobError, OutOfDisk, Problem, Unavailable
from job.storage.cancellation import Cancellation
from job.storage.faults import disk_is_full, work_disk_fault

CHUNK_BYTES: Final = 1024 * 1024
_ETAG_BYTES: Final = 16


def etag_of_data(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_ETAG_BYTES).hexdigest()


def etag_of_file(file: BufferedReader) -> str:
    """Of an open file, which stands at its start again afterwards. Reads all of it."""
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_ETAG_BYTES))
    file.seek(0)
    return digest.hexdigest()


def sync(file: BufferedWriter) -> None:
    """Until the content is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Until the names in it are on the disk: a new name must survive a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary(folder: Path, prefix: str = "") -> Iterator[tuple[BufferedWriter, Path]]:
    """A new file, gone at the end unless it was renamed."""
    path = folder / f"{prefix}{uuid.uuid4().hex}"
    try:
        with path.open("xb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def copy(source: BufferedReader, target: BufferedWriter, cancellation: Cancellation) -> None:
    """All of it. Raises `Cancelled`."""
    while chunk := source.read(CHUNK_BYTES):
        cancellation.check()
        target.write(chunk)
    cancellation.check()


def copied_whole(source: BufferedReader, target: Path, cancellation: Cancellation) -> None:
    """Copy into the work volume; `target` appears once it is whole.

    Raises `Cancelled`, `OutOfDisk`, and `SettingsError` if it can't be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary(target.parent, prefix=target.name[:100] + ".") as (file, unfinished):
            copy(source, file, cancellation)
            file.flush()
            unfinished.replace(target)
    except OSError as error:
        if (fault := work_disk_fault(error)) is not None:
            raise fault from error
        raise


def root_fault(error: OSError, where: str) -> JobError:
    """What a failed read or write below the storage's root means."""
    problem = Problem(where, error.strerror or str(error))
    if disk_is_full(error):
        return OutOfDisk(Problem(where, problem.found, "free space on that volume"))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(problem)
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN):
        return Unavailable(problem)
    return JobError(problem)
