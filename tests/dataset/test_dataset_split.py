from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from job.dataset.identity import Identity
from job.dataset.split import Split, split
from tests.dataset.places import place
from tests.dataset.standin import row, turn

Hashed = tuple[int, int, int]
"""Prompt, id (0: none) and content of a row, hashed."""

# Few prompts and ids, so that groups form.
hashed = st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(1, 2**60))


def asked(question: str, answer: str = "x", system: str = "s") -> float:
    messages = (turn("system", system), turn("user", question), turn("assistant", answer))
    return place(row(*messages))


def sides(rows: list[Hashed], fraction: float = 0.4) -> dict[Hashed, str]:
    result = split_at(rows, fraction)
    found = dict.fromkeys((rows[i] for i in result.train), "train")
    return found | dict.fromkeys((rows[i] for i in result.evaluation), "evaluation")


def split_at(rows: list[Hashed], fraction: float, limit: int = 10**9) -> Split:
    prompts, ids, contents = np.array(rows, dtype=np.uint64).T
    return split(prompts, ids, contents, fraction, limit)


def test_places_never_change() -> None:
    """Fixed figures: another hash would move rows that were held out into training."""
    assert asked("What is the weather in Oslo?") == 0.4720686057026544
    assert asked("") == 0.49682312988529254


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


def test_case_and_white_space_make_no_other_prompt() -> None:
    assert asked("What is\n the Weather? ") == asked("what is the weather?")
    assert asked("what is the weather?", system="other") != asked("what is the weather?")


def test_about_as_many_rows_as_asked_for_are_held_out() -> None:
    held_out = sum(asked(f"question {n}") < 0.2 for n in range(5000))
    assert 900 < held_out < 1100


@given(st.lists(hashed, min_size=1, max_size=60, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_the_data_makes_no_difference(
    rows: list[Hashed], chance: random.Random
) -> None:
    assert sides(chance.sample(rows, len(rows))) == sides(rows)


@given(st.lists(hashed, min_size=1, max_size=60, unique=True))
def test_rows_with_one_id_or_one_prompt_are_on_one_side(rows: list[Hashed]) -> None:
    found = sides(rows)
    for one in rows:
        for other in rows:
            if one[0] == other[0] or one[1] == other[1] != 0:
                assert found[one] == found[other]


@given(
    st.lists(hashed, min_size=1, max_size=40, unique=True),
    st.lists(hashed, max_size=40, unique=True),
)
def test_growth_moves_no_row_unless_it_ties_groups_together(
    rows: list[Hashed], more: list[Hashed]
) -> None:
    ids = {row[1] for row in rows}
    new = [one for one in more if one not in rows and (one[1] == 0 or one[1] not in ids)]
    # Its own prompts only, or prompts that are there already under no new tie.
    new = [(prompt + 1000, number, content) for prompt, number, content in new]
    before, after = sides(rows), sides(rows + new)
    assert {one: after[one] for one in rows} == before


@given(
    st.lists(hashed, min_size=1, max_size=40, unique=True),
    st.lists(st.tuples(st.integers(0, 39), st.integers(1, 10**6)), max_size=40, unique=True),
)
def test_new_prompts_under_known_ids_move_no_row(
    rows: list[Hashed], more: list[tuple[int, int]]
) -> None:
    """A conversation that goes on the next day; alone until then, or not."""
    known = [row[1] for row in rows if row[1]]
    new = [
        (1000 + 50 * n + at, known[at % len(known)], content)
        for n, (at, content) in enumerate(more if known else [])
    ]
    before, after = sides(rows), sides(rows + new)
    assert {one: after[one] for one in rows} == before


@given(st.lists(st.tuples(hashed, st.booleans()), min_size=1, max_size=60, unique=True))
def test_without_ids_no_new_row_moves_another(rows: list[tuple[Hashed, bool]]) -> None:
    plain = [((prompt, 0, content), new) for (prompt, _, content), new in rows]
    old = list(dict.fromkeys(row for row, new in plain if not new))
    before = sides(old) if old else {}
    after = sides(list(dict.fromkeys(row for row, _ in plain)))
    assert {one: after[one] for one in old} == before


@given(
    st.lists(hashed, min_size=1, max_size=60, unique_by=lambda row: row[2]),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_the_cap_keeps_the_same_rows_in_any_order(
    rows: list[Hashed], limit: int, chance: random.Random
) -> None:
    everything = split_at(rows, 0.5)
    capped = split_at(rows, 0.5, limit)
    assert capped.evaluation.tolist() == everything.evaluation.tolist()[:limit]
    assert capped.unused == len(everything.evaluation) - len(capped.evaluation)
    assert capped.train.tolist() == everything.train.tolist()
    shuffled = chance.sample(rows, len(rows))
    again = split_at(shuffled, 0.5, limit)
    assert [shuffled[i] for i in again.evaluation] == [rows[i] for i in capped.evaluation]


@given(
    st.lists(hashed, min_size=1, max_size=30, unique_by=lambda row: row[2]),
    st.integers(2, 4),
    st.integers(1, 60),
)
def test_copies_take_no_place_from_other_rows(rows: list[Hashed], times: int, limit: int) -> None:
    held_out = {rows[i] for i in split_at(rows, 0.5).evaluation}
    result = split_at(rows * times, 0.5, limit)
    drawn = [(rows * times)[i] for i in result.evaluation]
    assert len(drawn) == min(limit, len(held_out) * times)
    assert len(set(drawn)) == min(limit, len(held_out))
    assert result.unused == len(held_out) * times - len(drawn)
    alone = [rows[i] for i in split_at(rows, 0.5, limit).evaluation]
    assert list(dict.fromkeys(drawn)) == alone, (
        "the rows, and their order, are those without copies"
    )


def test_a_large_group_is_no_more_likely_held_out_than_a_small_one() -> None:
    """Named after its lowest hash, it would be, were that hash its place."""
    chance = np.random.default_rng(1)
    prompts = chance.integers(1, 2**63, 4000).astype(np.uint64)
    ids = np.repeat(np.arange(1, 401, dtype=np.uint64), 10)
    result = split(prompts, ids, prompts, 0.2, 10**9)
    assert 0.15 < len(result.evaluation) / 4000 < 0.25
    assert result.largest_group == 10


def test_a_chain_of_ties_is_one_group() -> None:
    """Each row shares its id with the one before and its prompt with the one after."""
    chain = [(n // 2 + 1, (n + 1) // 2 + 1, n + 1) for n in range(200)]
    assert len(set(sides(chain).values())) == 1


def test_the_same_id_in_another_type_is_another_id() -> None:
    def with_id(value: object) -> int:
        return Identity.of(row(turn("user", "a"), turn("assistant", "b"), id=value)).id

    assert with_id("1") != with_id(1)
    assert with_id("x") == with_id("x")
    assert with_id(None) == with_id("") == with_id([]) == with_id({"a": 1}) == 0


def test_a_content_hash_sees_all_that_the_model_sees() -> None:
    one = row(turn("user", "a"), turn("assistant", "b"), id=1)
    same = row(turn("user", "a"), turn("assistant", "b"), id=2)
    other = row(turn("user", "a"), turn("assistant", "c"), id=1)
    assert Identity.of(one).content == Identity.of(same).content != Identity.of(other).content
    huge = row(turn("user", "a"), turn("assistant", "b"), tools=[{"name": "t", "x": 2**70}])
    assert Identity.of(huge).content != Identity.of(one).content
