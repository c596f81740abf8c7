"""Memory and CPU time of a process and what it starts, as the kernel sees them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.data.watched import SideFailed, Watched, run

MEGABYTE = 1_000_000


def watched(tmp_path: Path, code: str) -> Watched:
    log = tmp_path / "log"
    return run([sys.executable, "-c", code], dict(os.environ), log, tmp_path)


def test_the_peak_counts_what_was_given_back_at_once(tmp_path: Path) -> None:
    plain = watched(tmp_path, "import time; time.sleep(0.2)")
    brief = watched(tmp_path, "import time; bytearray(b'x') * 200_000_000; time.sleep(0.2)")
    assert plain.peak < 100 * MEGABYTE
    assert brief.peak > 190 * MEGABYTE


def test_processes_that_are_started_count_too(tmp_path: Path) -> None:
    hold = "import time; held = bytearray(b'x') * 100_000_000; time.sleep(1.5)"
    both = (
        "import subprocess, sys; "
        f"inner = subprocess.Popen([sys.executable, '-c', {hold!r}]); "
        f"{hold}; inner.wait()"
    )
    found = watched(tmp_path, both)
    assert found.peak > 195 * MEGABYTE
    assert found.peak_anonymous > 195 * MEGABYTE


def test_mapped_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(150 * MEGABYTE))
    code = (
        "import mmap, time; file = open('large', 'rb'); "
        "held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); "
        "sum(held[::4096]); time.sleep(0.5)"
    )
    found = watched(tmp_path, code)
    assert found.peak > 150 * MEGABYTE
    assert found.peak_anonymous < 100 * MEGABYTE


def test_its_own_work_is_not_that_of_others(tmp_path: Path) -> None:
    """Whatever others do meanwhile, they can't have had the cores' time that it had."""
    cores = os.cpu_count() or 1
    busy = "import time\nwhile time.process_time() < 1: pass"
    each = f"[subprocess.Popen([sys.executable, '-c', {busy!r}]) for _ in range({cores})]"
    began = time.perf_counter()
    found = watched(tmp_path, f"import subprocess, sys; [one.wait() for one in {each}]")
    own = cores * 1.0 / (time.perf_counter() - began)
    assert 0 <= found.others <= cores - 0.8 * own


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SideFailed, match="ValueError: out of words"):
        watched(tmp_path, "raise ValueError('out of words')")
