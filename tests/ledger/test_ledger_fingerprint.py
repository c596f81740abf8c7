"""What two attempts may differ in, and how a refusal reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import FingerprintMismatch
from job.ledger import Difference, compare, flatten, refuse_too_late

RECORDED = flatten(
    {
        "data": [{"uri": "s3://b/a.jsonl", "sha256": "aa"}, {"uri": "s3://b/b.jsonl"}],
        "lora": {"r": 16, "dropout": 0.0},
        "seed": 3407,
        "versions": {"torch": "2.13.0", "unsloth": None},
        "provenance": {"etags": ["e1"]},
    }
)


def told(*given: Any) -> list[str]:
    return [str(difference) for difference in compare(*given)]


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
    current = RECORDED | {"seed": 1, "lora.dropout": 0.5, "data.0.sha256": "bb"}
    current |= {"versions.torch": "2.14"}
    with pytest.raises(FingerprintMismatch) as caught:
        compare(RECORDED, current)
    assert caught.value.exit_code == 78
    assert [str(problem) for problem in caught.value.problems] == [
        "data.0.sha256: was 'aa', is now 'bb'",
        "lora.dropout: was 0.0, is now 0.5",
        "seed: was 3407, is now 1",
    ]
    head, *_, last = str(caught.value).splitlines()
    assert head == "3 problems:"
    assert last == (
        "to mend it: use the old values, or another FORGE_RUN_ID for a new run (or accept the "
        "change: FORGE_ALLOW_FINGERPRINT_CHANGE=data.0.sha256,lora.dropout,seed)"
    )


def test_what_the_refusal_says_to_accept_is_accepted() -> None:
    current = RECORDED | {"seed": 1, "lora.dropout": 0.5}
    with pytest.raises(FingerprintMismatch) as caught:
        compare(RECORDED, current)
    _, _, fields = caught.value.remedy.rstrip(")").partition("=")
    assert told(RECORDED, current, fields.split(",")) == [
        "lora.dropout: was 0.0, is now 0.5",
        "seed: was 3407, is now 1",
    ]


def test_versions_and_provenance_are_tolerated_aloud() -> None:
    current = RECORDED | {"versions.torch": "2.14.0", "provenance.etags.0": "e2"}
    assert told(RECORDED, current) == [
        "provenance.etags.0: was 'e1', is now 'e2'",
        "versions.torch: was '2.13.0', is now '2.14.0'",
    ]


@pytest.mark.parametrize("accepted", [["lora.dropout"], ["lora"], ["seed", "lora"], iter(["lora"])])
def test_accepted_by_name_or_by_parent(accepted: Any) -> None:
    current = RECORDED | {"lora.dropout": 0.5}
    assert told(RECORDED, current, accepted) == ["lora.dropout: was 0.0, is now 0.5"]


@pytest.mark.parametrize("accepted", [["lora.r", "optim"], ["lora", "optim"], ["optim"]])
def test_no_acceptance_loads_a_checkpoint_that_cannot_be(accepted: list[str]) -> None:
    recorded = RECORDED | {"optim": "adamw_8bit", "lr": 1}
    current = RECORDED | {"optim": "adamw_torch", "lr": 2, "lora.r": 8}
    with pytest.raises(FingerprintMismatch) as caught:
        compare(recorded, current, accepted)
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "lora.r: was 16, is now 8 (the checkpoints' matrices have the old rank: no other can "
            "take them up)"
        ),
        "lr: was 1, is now 2",
        (
            "optim: was 'adamw_8bit', is now 'adamw_torch' (the checkpoints hold the old "
            "optimizer's state: no other can take it up)"
        ),
    ]
    assert caught.value.remedy == (
        "use the old values, or another FORGE_RUN_ID for a new run (or accept the change: "
        "FORGE_ALLOW_FINGERPRINT_CHANGE=lr)"
    )


def test_where_nothing_refused_can_be_accepted_nothing_is_said_of_it() -> None:
    with pytest.raises(FingerprintMismatch) as caught:
        compare(RECORDED, RECORDED | {"lora.r": 8}, ["lora"])
    way = "use the old values, or another FORGE_RUN_ID for a new run"
    assert str(caught.value) == f"{caught.value.problems[0]}; to mend it: {way}"


def test_a_paged_optimizer_takes_up_the_state_of_the_plain_one() -> None:
    """What `out of memory` advises has to be possible in the run that has met it."""
    recorded, current = {"optim": "adamw_8bit"}, {"optim": "paged_adamw_8bit"}
    assert len(compare(recorded, current, ["optim"])) == 1


@pytest.mark.parametrize(
    ("name", "touches"),
    [
        ("data.0.sha256", True),
        ("data.0.uri", False),
        ("rows.train", True),
        ("split.eval_max_rows", True),
        ("loss_on", True),
        ("max_seq_length", True),
        ("model_revision", True),
        ("template_sha256", True),
        ("lora.alpha", True),
        ("lora.dropout", False),
        ("learning_rate", False),
        ("dataset_uri", False),
        ("versions.torch", False),
    ],
)
def test_what_a_validation_loss_is_of(name: str, touches: bool) -> None:
    assert Difference(name, 1, 2).touches_validation == touches


def test_what_nothing_is_left_to_take_up_is_refused() -> None:
    """Training was over: a run must not say that it was trained with it."""
    harmless = [Difference(n, 1, 2) for n in ("data.0.uri", "max_steps", "versions.torch")]
    refuse_too_late(harmless, 24)
    with pytest.raises(FingerprintMismatch, match="training was over at step 24") as caught:
        refuse_too_late([*harmless, Difference("data.0.sha256", "a", "b")], 24)
    assert [problem.where for problem in caught.value.problems] == ["data.0.sha256"]


def test_who_accepts_other_data_accepts_other_row_counts() -> None:
    recorded = RECORDED | {"rows.train": 8}
    current = recorded | {"rows.train": 9, "data.0.sha256": "bb"}
    assert len(compare(recorded, current, ["data"])) == 2
    with pytest.raises(FingerprintMismatch, match=r"data\.0\.sha256"):
        compare(recorded, current, ["rows"])
    with pytest.raises(FingerprintMismatch, match=r"rows\.train"):
        compare(recorded, current, ["data.0.sha256"])


def test_a_list_that_can_be_read_once_covers_every_field() -> None:
    current = RECORDED | {"lora.alpha": 8, "lora.dropout": 0.5, "seed": 1}
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
    assert told({"versions.trl": "1"}, {"versions.xformers": "2"}) == [
        "versions.trl: was '1', is now None",
        "versions.xformers: was None, is now '2'",
    ]
