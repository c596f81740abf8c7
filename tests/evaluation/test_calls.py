from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.dataset import Row, ToolReader, declared
from job.evaluation.calls import (
    Malformed,
    Score,
    ToolCall,
    expected_calls,
    parse_tool_calls,
    score,
    summarize,
)
from job.evaluation.intervals import wilson
from job.evaluation.tables import by_tool


def written(arguments: str, name: str = "f") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def expecting(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ONE = written('{"a": 1, "b": [true, null, "x"]}')


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("No tool fits.", []),
        (ONE, [ToolCall("f", {"a": 1, "b": [True, None, "x"]})]),
        (
            "I look it up.\n" + written("{}") + "\n" + written("{}", "g"),
            [ToolCall("f", {}), ToolCall("g", {})],
        ),
        ('<tool_call>{"arguments": {}, "name": "f"}</tool_call>', [ToolCall("f", {})]),
        ("<think>" + ONE + "</think>Nothing to call.", []),
    ],
)
def test_calls_are_read(text: str, calls: list[ToolCall]) -> None:
    assert parse_tool_calls(text) == calls


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<tool_call>", "is not closed"),
        (written("{}")[: -len("</tool_call>")], "is not closed"),
        (written("{}").removeprefix("<tool_call>"), "not opened"),
        ("<tool_call>{'name': 'f', 'arguments': {}}</tool_call>", "it looks like Python"),
        ("<tool_call>f(1)</tool_call>", "is not JSON"),
        ("<tool_call></tool_call>", "is not JSON"),
        (written("[]"), "are not a JSON object"),
        (written('{"x": NaN}'), "is not JSON"),
        (written('{"x": ' * 70 + "1" + "}" * 70), "nest deeper"),
        (written("[" * 5000), "is not JSON"),
        ('<tool_call>{"arguments": {}}</tool_call>', "no 'name'"),
    ],
)
def test_what_was_meant_as_a_call_and_is_none(text: str, reason: str) -> None:
    [found] = parse_tool_calls(text)
    assert isinstance(found, Malformed)
    assert reason in found.reason
    given = score(expecting(ONE), text)
    assert given == Score(
        expects_call=True, called=True, well_formed=False, right_tool=False, exact=False
    )
    assert not score(expecting("No."), text).refused_rightly


@pytest.mark.parametrize(
    ("expected", "generated"),
    [
        ('{"a": 1}', '{"a": 1.0}'),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ('{"a": {"x": [1, {"y": null}]}}', '{"a": {"x": [1.0, {"y": null}]}}'),
        ('{"a": "é"}', '{"a": "\\u00e9"}'),
        ('{"a": 100}', '{"a": 1e2}'),
    ],
)
def test_equal_json_is_exact(expected: str, generated: str) -> None:
    assert score(expecting(written(expected)), written(generated)).exact


@pytest.mark.parametrize(
    ("expected", "generated"),
    [
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 0}', '{"a": false}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": null}', "{}"),
        ('{"a": 1}', '{"a": 1, "b": null}'),
        ('{"a": {}}', '{"a": []}'),
    ],
)
def test_other_json_is_the_right_tool_only(expected: str, generated: str) -> None:
    given = score(expecting(written(expected)), written(generated))
    assert given.right_tool
    assert not given.exact


def test_parallel_calls_are_a_set_in_which_numbers_count() -> None:
    a, b = written('{"x": 1}'), written('{"x": 2}')
    assert score(expecting(a + b), b + "\n" + a).exact
    for generated in (a, a + a, a + b + b):
        assert not score(expecting(a + b), generated).exact
    assert score(expecting(a + b), a + a).right_tool
    assert not score(expecting(a + b), a).right_tool


def test_a_malformed_call_beside_the_right_one_spoils_it() -> None:
    given = score(expecting(ONE), ONE + "<tool_call>")
    assert (given.well_formed, given.right_tool, given.exact) == (False, False, False)


def test_turns_without_a_call() -> None:
    refused = score(expecting("No tool fits."), "I can't do that.")
    assert refused.refused_rightly
    assert not refused.expects_call
    called = score(expecting("No tool fits."), ONE)
    assert not called.refused_rightly
    assert not called.exact
    silent = score(expecting(ONE), "I can't do that.")
    assert (silent.called, silent.well_formed, silent.refused_rightly) == (False, False, False)


def test_the_expected_turn_may_be_in_the_openai_form() -> None:
    turn = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
    }
    assert expected_calls(turn) == [ToolCall("f", {"a": 1})]
    assert score(turn, written('{"a": 1}')).exact


def test_an_expected_turn_that_is_malformed_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="is not closed"):
        score(expecting("<tool_call>"), ONE)


def test_the_summary_counts_each_measure_over_its_own_turns() -> None:
    texts = [
        (ONE, ONE),
        (ONE, written("{}")),
        (ONE, written("{}", "g")),
        (ONE, "no"),
        ("No.", "no"),
        ("No.", ONE),
    ]
    summary = summarize([score(expecting(turn), text) for turn, text in texts])
    assert {name: (m["count"], m["of"], m["rate"]) for name, m in summary.items()} == {
        "well_formed": (3, 4, 0.75),
        "right_tool": (2, 4, 0.5),
        "exact": (1, 4, 0.25),
        "refusal": (1, 2, 0.5),
    }
    assert all(m["low"] < m["rate"] < m["high"] for m in summary.values())


def test_a_measure_with_nothing_to_judge_is_left_out() -> None:
    assert summarize([]) == {}
    assert set(summarize([score(expecting("No."), "no")])) == {"refusal"}


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_by_published_figures(count: int, of: int, low: float, high: float) -> None:
    assert wilson(count, of) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_an_interval_holds_its_share(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


json_text = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_text, max_size=4))
def test_what_is_written_is_read_back(arguments: dict[str, Any]) -> None:
    turn = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    text = json.dumps(arguments)
    tagged = "tool_call>" in text or "<think>" in text
    assert tagged or score(turn, written(text)).exact


_PIECES = [
    "<tool_call>", "</tool_call>", "<think>", "</think>", '{"name": "f", "arguments": ', "{", "}",
    '{"a": ', "[", "]", "[" * 3000, '{"a":' * 500, "NaN", "-Infinity", "1e999", "9" * 5000,
    '"a": 1, ',
    "null", '"\\ud800"', "\ud800", "\x00", "\x1b[2J", "\u202e", "'", "\\", "," , '"', "True",
    ONE * 300,
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=12), st.booleans())
def test_no_answer_makes_the_score_fail(pieces: list[str], cut_off: bool) -> None:
    text = "".join(pieces)
    tools = declared(Row("x", 1, (ASKED,), tools=[TOOL]), ToolReader())
    for turn in (expecting(ONE), expecting("No.")):
        given = score(turn, text, tools, cut_off=cut_off, text_match="normalized")
        assert given.well_formed or not (given.exact or given.right_tool)
        assert not (cut_off and (given.exact or given.well_formed or given.text_match))


def test_a_key_that_stands_twice_is_read_as_a_server_does() -> None:
    assert score(expecting(ONE), written('{"a": 2, "a": 1, "b": [true, null, "x"]}')).exact


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("<think>Shall I? " + written("{}") + "</think>" + ONE, True),
        ("<think>I know.\n" + ONE, False),  # it never stopped thinking: a server shows no call
        ("Let me see.\n" + ONE + "\nDone.", True),
    ],
)
def test_what_a_model_thinks_is_not_judged(text: str, exact: bool) -> None:
    assert score(expecting(ONE), text).exact is exact


def test_an_answer_that_was_cut_off_is_no_call() -> None:
    assert not score(expecting(ONE), ONE + " and " * 20, cut_off=True).right
    endless = score(expecting("No."), "No. " * 50, cut_off=True, text_match="normalized")
    assert (endless.right, endless.text_match) == (True, False), "it made no call"
    assert not score(expecting("No."), "No <tool_call>", cut_off=True).right
    assert not score(expecting("No."), "<think>So, no call?", cut_off=True).right


@pytest.mark.parametrize(
    ("expected", "generated", "exact", "same"),
    [
        ("It is 5 °C.", "It is 5 °C.", True, True),
        ("It is 5 °C.", " It is 5 °C.\n", True, True),
        ("It is 5 °C.", "it is  5 \u2103", False, True),
        ("Straße, ok!", "STRASSE ok", False, True),
        ("No.", "<think>Hm.</think>No.", True, True),
        ("No.", "Yes.", False, False),
        ("3.5", "35", False, True),  # the price of leaving punctuation out
    ],
)
def test_texts_are_compared_when_asked_for(
    expected: str, generated: str, exact: bool, same: bool
) -> None:
    turn = expecting(expected)
    assert score(turn, generated).text_match is None
    assert score(turn, generated, text_match="exact").text_match is exact
    assert score(turn, generated, text_match="normalized").text_match is same
    assert score(expecting(ONE), generated, text_match="exact").text_match is None


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
IN_TEXT = {"role": "system", "content": f"<tools>{json.dumps(TOOL)}</tools>"}
ASKED = {"role": "user", "content": "?"}


@pytest.mark.parametrize(
    "row",
    [
        Row("x", 1, (ASKED,), tools=[TOOL]),
        Row("x", 1, (IN_TEXT, ASKED)),
        Row("x", 1, ({"role": "system", "content": "Be short."}, ASKED), tools=[TOOL]),
    ],
    ids=["beside the messages", "in the text", "beside other words"],
)
@pytest.mark.parametrize(
    ("generated", "valid"),
    [
        (written('{"a": 2}'), True),
        (written('{"a": "2"}'), False),
        (written("{}"), False),
        (written('{"a": 2}', "g"), False),
        (written('{"a": 2}') + written("{}"), False),
        ("<tool_call>{", False),
        ("No tool fits.", False),
    ],
)
def test_arguments_are_held_against_the_declared_schema(
    row: Row, generated: str, valid: bool
) -> None:
    tools = declared(row, ToolReader())
    given = score(expecting(written('{"a": 1}')), generated, tools)
    assert given.valid is valid
    assert summarize([given])["valid_arguments"]["rate"] == float(valid)


def test_tools_are_counted_by_what_was_expected() -> None:
    both = expecting(written("{}") + written("{}", "g"))
    expected = [expecting(written("{}")), both, expecting("None fits."), both]
    right = [score(turn, turn["content"]) for turn in expected]
    wrong = [score(turn, "no") for turn in expected]
    assert by_tool(expected, wrong, right) == {
        "f": {"of": 3, "base": 0, "adapter": 3},
        "g": {"of": 2, "base": 0, "adapter": 2},
    }
    assert list(by_tool(expected, wrong, right)) == ["f", "g"]
