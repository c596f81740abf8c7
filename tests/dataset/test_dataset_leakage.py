"""Prompts that are nearly the same on both sides are found; prompts that are not, are not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.dataset import ChatFormat, DataFile, check_only, prepare
from job.dataset.identity import BANDS, sketches
from tests.dataset.places import place
from tests.dataset.preparing import options
from tests.dataset.standin import chat_row, data_file, row, turn

CHANCE = random.Random(5)
WORDS = ["".join(CHANCE.choices("abcdefghijklmnop", k=CHANCE.randint(3, 9))) for _ in range(2000)]


def prompt(length: int = 40) -> str:
    return " ".join(CHANCE.choices(WORDS, k=length))


def held_out(text: str) -> bool:
    return place(row(turn("user", text), turn("assistant", "x"))) < 0.5


def twins() -> tuple[str, str]:
    """A held-out prompt and a trained one that differ in one word of forty."""
    while True:
        words = prompt().split()
        other = words.copy()
        other[CHANCE.randrange(40)] = "other"
        one, two = " ".join(words), " ".join(other)
        if held_out(one) and not held_out(two):
            return one, two


@pytest.fixture
def file(tmp_path: Path) -> DataFile:
    rows = [chat_row(text, f"answer {n}") for n in range(20) for text in twins()]
    rows += [chat_row(prompt(), f"answer {n}") for n in range(400)]
    return data_file(tmp_path / "data.jsonl", *rows)


def test_near_copies_on_both_sides_are_told(
    file: DataFile, chatml: ChatFormat, tmp_path: Path
) -> None:
    wanted = options(max_seq_length=2048, eval_fraction=0.5)
    report = prepare([file], chatml, wanted, tmp_path / "prepared").report
    assert report.leakage.count >= 18  # of 20: the sketch may miss some
    for example in report.leakage.examples:
        assert example.line % 2 == 0
        assert f"{example.uri}:{example.line - 1}, which is held out" in example.detail
    assert report.as_dict()["leakage"] == report.leakage.count
    assert report.results["leaked"] == report.leakage.count
    assert any("nearly that of an evaluation row" in notice for notice in report.notices())
    assert check_only([file], wanted).leakage == report.leakage


def test_prompts_of_the_same_words_are_alike_and_others_are_not() -> None:
    one = prompt()
    same, near, far = sketches([one, one.replace(one.split()[20], "x", 1), prompt()])
    [again] = sketches([one])
    assert (again == same).all()
    assert (near == same).any()
    assert not (far == same).any()


@given(st.lists(st.text(max_size=60), max_size=8))
def test_a_sketch_depends_on_its_own_prompt_alone(prompts: list[str]) -> None:
    together = sketches(prompts)
    assert together.shape == (len(prompts), BANDS)
    for text, found in zip(prompts, together, strict=True):
        assert (sketches([text])[0] == found).all()
