"""A server's `hermes` parser reads exactly the row's calls in what is trained for Qwen2.5.

The rules of vLLM's parser, written down here from its public description: a call is what stands
between `<tool_call>` and `</tool_call>`, or after a `<tool_call>` that nothing closes; each must be
JSON with `name` and `arguments`; one that isn't makes the whole answer plain text; the content is
what stands before the first call. A stream is read by other rules: a name is the first `"name"`
in the block, and the arguments are the object after the first `"arguments"`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.dataset import Row, RowRefused
from tests.dataset.conversations import CONVERSATIONS, TOOLS, as_read, said, user
from tests.dataset.masks import as_read_by, stretches
from tests.dataset.standin import call, row
from tests.dataset.standin_families import FAMILIES, chat_format, tokenizer_of

END: Final = "<|im_end|>"
OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    content: str | None
    calls: list[tuple[str, Any]]


def served(output: str) -> Answer:
    """An answer read at once."""
    try:
        blocks = [json.loads(block) for block in _blocks(output)]
        calls = [(block["name"], block["arguments"]) for block in blocks]
    except (ValueError, KeyError, TypeError):
        return Answer(output, [])
    return Answer(output.split(OPEN, 1)[0] or None, calls)


def streamed(output: str) -> list[tuple[str, Any]]:
    """The calls of an answer read as it comes, once all of it is there."""
    return [(_first_name(block), _first_arguments(block)) for block in _blocks(output)]


def _blocks(output: str) -> list[str]:
    """What stands in each pair of tags; the first closing tag closes, whatever was opened."""
    blocks, rest = [], output
    while OPEN in rest:
        block, _, rest = rest.split(OPEN, 1)[1].partition(CLOSE)
        blocks.append(block)
    return blocks


def _first_name(block: str) -> str:
    after = block.split('"name"', 1)[1].lstrip(": \n")
    return after.removeprefix('"').split('"', 1)[0]


def _first_arguments(block: str) -> Any:
    after = block.split('"arguments"', 1)[1].lstrip(": \n")
    return json.JSONDecoder().raw_decode(after)[0]


def outputs(conversation: Row) -> list[str]:
    """What the model is trained to say, turn by turn, as a server sees it."""
    chat = chat_format("qwen2.5")
    [sample] = chat.encode([chat.render(conversation)], "assistant")
    tokenizer = tokenizer_of(FAMILIES["qwen2.5"])
    trained = [stretch.text for stretch in stretches(tokenizer, sample) if stretch.trained]
    assert all(text.endswith(END) for text in trained)
    return [text.removesuffix(END) for text in trained]


def same_json(one: object, other: object) -> bool:
    """Equal as JSON is: 1 is not true, and the order of keys means nothing."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# Calls of the conversations, written down a second time.

OSLO: Final = ("weather", {"city": "Oslo"})
ROMA: Final = ("weather", {"city": "Roma"})
TRIP: Final = (
    "book_trip",
    {
        "legs": [
            {"from": "Zürich ⛰", "to": "東京", "days": [1, 2.5, -3e-7]},
            {
                "note": 'say "hi"\n\t\\ and </b>',
                "first": True,
                "via": None,
                "deep": {"a": {"b": []}},
            },
        ]
    },
)
CALLS: Final[dict[str, list[tuple[str | None, list[tuple[str, Any]]]]]] = {
    "H one call": [(None, [OSLO])],
    "H ends with a call": [(None, [OSLO])],
    "H parallel calls": [(None, [OSLO, ROMA])],
    "H text, then a call": [("Let me look.\n", [("weather", {"city": "Tromsø ❄"})])],
    "H several rounds": [(None, [OSLO]), (None, [TRIP]), (None, [ROMA])],
    "H thinks after the tool": [(None, [OSLO])],
    "H thinks before the call": [("<think>\nlook\n</think>\n", [OSLO])],
    "O one call": [(None, [OSLO])],
    "O one call, no system turn, no ids": [(None, [OSLO])],
    "O ends with a call": [(None, [OSLO])],
    "O parallel calls": [(None, [OSLO, ROMA])],
    "O three parallel calls": [(None, [OSLO, ROMA, ("weather", {"city": "Bonn"})])],
    "O text and a call": [("Let me look.\n", [OSLO])],
    "O several rounds": [(None, [OSLO]), (None, [TRIP]), (None, [("weather", {"city": "東京"})])],
    "O nothing as arguments": [(None, [("weather", {})])],
}
"""Conversation → content and calls of each turn that calls."""


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name != "O reasons apart"])
def test_a_server_reads_exactly_the_calls_of_the_row(name: str) -> None:
    expected = iter(CALLS.get(name, []))
    conversation = as_read()[name]
    for index, output in zip(conversation.assistant_turns, outputs(conversation), strict=True):
        answer = served(output)
        if not answer.calls:
            assert OPEN not in output
            assert answer.content == output
            # Line ends at the start may belong to the header's token.
            text = as_read_by(FAMILIES["qwen2.5"], conversation.messages[index]["content"])
            assert text.lstrip() == output.lstrip()
            continue
        content, calls = next(expected)
        assert answer.content == content
        assert same_json(answer.calls, calls)
        assert same_json(streamed(output), calls)
    assert next(expected, None) is None


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab \"\\'ñ{}:", max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
_ARGUMENTS = st.dictionaries(st.text('abc"\\{ñ\n', min_size=1, max_size=8), _VALUES, max_size=3)


@settings(max_examples=200)
@given(arguments=st.lists(_ARGUMENTS, min_size=1, max_size=3), text=st.sampled_from([None, "Ok."]))
def test_arguments_survive_whatever_they_are(
    arguments: list[dict[str, Any]], text: str | None
) -> None:
    calls = [call("weather") | {"function": {"name": "weather", "arguments": a}} for a in arguments]
    try:
        [output] = outputs(row(user("go"), said(text, tool_calls=calls), tools=TOOLS))
    except RowRefused:
        return
    expected = [["weather", _nfc(value)] for value in arguments]
    assert same_json(served(output).calls, expected)
    assert same_json(streamed(output), expected)
    assert served(output).content == (None if text is None else text + "\n")


def test_an_opening_tag_in_an_argument_opens_nothing() -> None:
    asked = {"city": "<tool_call>"}
    [output] = outputs(
        row(user("go"), said(None, tool_calls=[call("weather", **asked)]), tools=TOOLS)
    )
    assert served(output).calls == streamed(output) == [("weather", asked)]


def _nfc(value: Any) -> Any:
    """As Qwen's tokenizer reads it."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(as_read_by(FAMILIES["qwen2.5"], text))
