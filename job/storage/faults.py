"""Faults that every backend has in common: the disk under it, and requests it does not know."""

from __future__ import annotations

import errno
import os

from job.errors import JobError, OutOfDisk, Problem, SettingsError

_FULL = (errno.ENOSPC, errno.EDQUOT)  # the volume is, or this user's quota on it
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotSupported(SettingsError):
    """The store answered that it does not implement what was asked of it."""


def disk_is_full(error: BaseException) -> bool:
    """Whether this failed because there is no more room to write into.

    A library that wraps the system's error (safetensors, in Rust) has no number, but its words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)


def work_disk_fault(error: OSError) -> JobError | None:
    """What a failed read or write of the work volume means, or None if it is not the volume."""
    where = str(error.filename or "the work volume")
    if disk_is_full(error):
        hint = "give FORGE_WORK_DIR a larger volume"
        return OutOfDisk(Problem(where, "no space is left on the device", hint))
    if error.errno in _NOT_WRITABLE:
        hint = "point FORGE_WORK_DIR at a volume that this user may write"
        return SettingsError(Problem(where, f"{error.strerror}", hint))
    return None
