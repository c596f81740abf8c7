"""What two attempts may differ in, and how a refusal reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import FingerprintMismatch
from job.ledger import compare, flatten

RECORDED = flatten(
    {
        "data": [{"uri": "s3://b/a.jsonl", "sha256": "aa"}, {"uri": "s3://b/b.jsonl"}],
        "lora": {"r": 16, "dropout": 0.0},
        "seed": 3407,
        "versions": {"torch": "2.13.0", "unsloth": None},
        "provenance": {"etags": ["e1"]},
    }
)


def test_flat_names() -> None:
    assert RECORDED == {
        "data.0.uri": "s3://b/a.jsonl",
        "data.0.sha256": "aa",
        "data.1.uri": "s3://b/b.jsonl",
        "lora.r": 16,
        "lora.dropout": 0.0,
        "seed": 3407,
        "versions.torch": "2.13.0",
        "versions.unsloth": None,
        "provenance.etags.0": "e1",
    }
    assert flatten({"empty": [], "none": {}}) == {}


def test_the_same_run_says_nothing() -> None:
    assert compare(RECORDED, dict(RECORDED)) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_a_fingerprint_is_equal_to_itself_after_json(tree: Any) -> None:
    flat = flatten({"tree": tree})
    assert compare(json.loads(json.dumps(flat)), flat) == []


def test_each_refused_field_is_named_with_both_values_and_the_way_out() -> None:
    current = RECORDED | {"seed": 1, "lora.r": 8, "data.0.sha256": "bb", "versions.torch": "2.14"}
    with pytest.raises(FingerprintMismatch) as caught:
        compare(RECORDED, current)
    assert caught.value.exit_code == 78
    assert [str(problem) for problem in caught.value.problems] == [
        "data.0.sha256: was 'aa', is now 'bb'",
        "lora.r: was 16, is now 8",
        "seed: was 3407, is now 1",
        (
            "to mend it: use the old values, or another FORGE_RUN_ID for a new run (or accept the "
            "change: FORGE_ALLOW_FINGERPRINT_CHANGE=data.0.sha256,lora.r,seed)"
        ),
    ]


def test_what_the_refusal_says_to_accept_is_accepted() -> None:
    current = RECORDED | {"seed": 1, "lora.r": 8}
    with pytest.raises(FingerprintMismatch) as caught:
        compare(RECORDED, current)
    _, _, fields = caught.value.problems[-1].hint.partition("=")
    assert compare(RECORDED, current, fields.split(",")) == [
        "lora.r: was 16, is now 8",
        "seed: was 3407, is now 1",
    ]


def test_versions_and_provenance_are_tolerated_aloud() -> None:
    current = RECORDED | {"versions.torch": "2.14.0", "provenance.etags.0": "e2"}
    assert compare(RECORDED, current) == [
        "provenance.etags.0: was 'e1', is now 'e2'",
        "versions.torch: was '2.13.0', is now '2.14.0'",
    ]


@pytest.mark.parametrize("accepted", [["lora.r"], ["lora"], ["seed", "lora"], iter(["lora"])])
def test_accepted_by_name_or_by_parent(accepted: Any) -> None:
    assert compare(RECORDED, RECORDED | {"lora.r": 8}, accepted) == ["lora.r: was 16, is now 8"]


def test_who_accepts_other_data_accepts_other_row_counts() -> None:
    recorded = RECORDED | {"rows.train": 8}
    current = recorded | {"rows.train": 9, "data.0.sha256": "bb"}
    assert len(compare(recorded, current, ["data"])) == 2
    with pytest.raises(FingerprintMismatch, match=r"data\.0\.sha256"):
        compare(recorded, current, ["rows"])
    with pytest.raises(FingerprintMismatch, match=r"rows\.train"):
        compare(recorded, current, ["data.0.sha256"])


def test_a_list_that_can_be_read_once_covers_every_field() -> None:
    current = RECORDED | {"lora.r": 8, "lora.dropout": 0.5, "seed": 1}
    assert len(compare(RECORDED, current, iter(["lora", "seed"]))) == 3


@pytest.mark.parametrize("accepted", ["lor", "lora.", "r", "lora.r.x", "", "LORA"])
def test_a_part_of_a_name_accepts_nothing(accepted: str) -> None:
    with pytest.raises(FingerprintMismatch, match=r"lora\.r: was 16, is now 8"):
        compare(RECORDED, RECORDED | {"lora.r": 8}, [accepted])


@pytest.mark.parametrize(
    ("recorded", "current", "said"),
    [
        ({}, {"seed": 1}, "seed: was None, is now 1"),
        ({"seed": 1}, {}, "seed: was 1, is now None"),
    ],
)
def test_a_field_that_one_side_does_not_know(
    recorded: dict[str, Any], current: dict[str, Any], said: str
) -> None:
    with pytest.raises(FingerprintMismatch) as caught:
        compare(recorded, current)
    assert str(caught.value.problems[0]) == said


def test_a_library_that_is_new_or_gone_is_tolerated() -> None:
    assert compare({"versions.trl": "1"}, {"versions.xformers": "2"}) == [
        "versions.trl: was '1', is now None",
        "versions.xformers: was None, is now '2'",
    ]
