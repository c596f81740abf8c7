"""Wheels through the real pip: checked, unpacked in part, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from job.demo.assets import LEADERBOARD, fetch, fetch_leaderboard
from job.errors import DataError, Unavailable


def test_only_the_data_files_are_unpacked(tmp_path: Path) -> None:
    data = fetch_leaderboard(tmp_path)
    assert (data / "BFCL_v4_simple_python.json").is_file()
    assert (data / "possible_answer" / "BFCL_v4_simple_python.json").is_file()
    assert not list(tmp_path.rglob("*.py"))
    assert [path.name for path in tmp_path.iterdir()] == ["bfcl-eval-2026.3.23"]


def test_what_is_there_is_not_fetched_again(
    leaderboard: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch_leaderboard(cache) == leaderboard


def test_without_an_index_the_error_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(Unavailable, match=r"bfcl-eval==2026\.3\.23: .*PIP_INDEX_URL"):
        fetch_leaderboard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SHA-256 is 3bb6dfa5.*, expected 000000"):
        fetch(replace(LEADERBOARD, sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_fetch_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "bfcl-eval-abcd1234").mkdir()
    assert fetch_leaderboard(tmp_path).is_dir()
