"""The memory that a container may take, wherever the kernel says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cgroups

V1 = "memory/memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "8000000000"}, 8 * 10**9),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/pod/x\n", {"memory.max": "max", "pod/x/memory.max": "7000"}, 7000),
        ("4:memory:/pod\n0::/\n", {V1: "9223372036854771712"}, None),
        ("4:memory:/pod\n", {V1: "9000"}, 9000),
        ("4:cpu,memory:/pod\n", {V1: "9000", "memory/pod/memory.limit_in_bytes": "5000"}, 5000),
        ("", {}, None),
    ],
)
def test_the_limit_of_the_cgroup(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    found = cgroups.made(tmp_path, files, own).memory_limit()
    assert (found and found[0]) == limit
