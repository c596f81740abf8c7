from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from job.dataset.split import LowestPlaces, place
from tests.dataset.standin import row, turn


def asked(question: str, answer: str = "x", system: str = "s") -> float:
    messages = (turn("system", system), turn("user", question), turn("assistant", answer))
    return place(row(*messages))


def test_places_never_change() -> None:
    """Fixed figures: another hash would move rows that were held out into training."""
    assert asked("What is the weather in Oslo?") == 0.6867648794000768
    assert asked("") == 0.0024142247188541077


@given(st.text(), st.text(), st.text())
def test_only_the_prompt_decides(question: str, one: str, other: str) -> None:
    assert asked(question, one) == asked(question, other)
    assert 0 <= asked(question) < 1
    longer = row(
        turn("system", "s"),
        turn("user", question),
        turn("assistant", one),
        turn("user", other),
        turn("assistant", "y"),
    )
    assert place(longer) == asked(question)


def test_about_as_many_rows_as_asked_for_are_held_out() -> None:
    held_out = sum(asked(f"question {n}") < 0.2 for n in range(5000))
    assert 900 < held_out < 1100


@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.integers(0, 3)), max_size=30),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_the_cap_keeps_the_lowest_in_any_order(
    entries: list[tuple[float, int]], limit: int, chance: random.Random
) -> None:
    def kept(order: list[tuple[float, int]]) -> LowestPlaces[tuple[float, int]]:
        lowest = LowestPlaces[tuple[float, int]](limit)
        for entry in order:
            lowest.add(*entry, entry)
        return lowest

    result = kept(entries)
    assert result.items() == sorted(entries)[:limit]
    assert result.unused == max(0, len(entries) - limit)
    shuffled = chance.sample(entries, len(entries))
    assert kept(shuffled).items() == result.items()


@given(st.integers(1, 5), st.lists(st.floats(0, 0.99), min_size=1, max_size=20))
def test_a_row_that_was_left_out_never_comes_back_with_growth(
    limit: int, places: list[float]
) -> None:
    lowest = LowestPlaces[int](limit)
    before: set[int] = set(range(limit))
    for number, at in enumerate(places):
        lowest.add(at, 0, number)
        assert set(lowest.items()) <= before | {number}
        before = set(lowest.items()) if number >= limit - 1 else before
