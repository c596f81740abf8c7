"""What is odd in a line's text, told the quick way for many lines and the exact way for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import job.dataset.rows.read
from job.dataset import RejectedRow, Row, read_rows
from job.dataset.rows.repeats import may_repeat, repeated_keys
from job.dataset.rows.screen import nothing_odd
from tests.dataset.standin import WEATHER, chat_row, data_file, turn
from tests.dataset.written import (
    A,
    U,
    accepted,
    answered,
    call_text,
    called,
    hermes,
    messages,
    read,
    told,
)

CALLS = turn("assistant", None, tool_calls=[called({"city": "Oslo"})])


@pytest.mark.parametrize("code", [*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
def test_every_control_character_is_refused(code: int, tmp_path: Path) -> None:
    # As an escape in small and in capital letters, and as it is where JSON allows it.
    written = [f"\\u{code:04x}", f"\\u{code:04X}", json.dumps(chr(code))[1:-1]]
    for text in [*written, "\x7f"] if code == 0x7F else written:
        raw = json.dumps(messages(turn("user", "a?"), A)).replace("?", text)
        row = read(tmp_path, raw.encode())
        assert [path for path, _ in told(row)] == ["messages[0].content"]
        assert isinstance(row, RejectedRow)


@pytest.mark.parametrize("text", ["tab\t", "line\nline", "line\r\nline", "\u0080", "\u2028", "\\b"])
def test_white_space_and_what_only_looks_like_an_escape_pass(text: str, tmp_path: Path) -> None:
    for ascii_only in (True, False):
        raw = json.dumps(chat_row(f"a{text}", "Hi."), ensure_ascii=ascii_only)
        row = accepted(tmp_path, raw.encode())
        assert not row.warnings
        assert row.messages[0]["content"] == f"a{text}"


def test_a_tools_output_may_have_colors(tmp_path: Path) -> None:
    line = messages(U, CALLS, turn("tool", "\x1b[31mred\x1b[0m"), A, tools=[WEATHER])
    assert told(accepted(tmp_path, line)) == [
        ("messages[2].content", "holds the control character U+001B at 1")
    ]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (answered(called({"city": "a\x01"})), "messages[1].tool_calls[0].function.arguments"),
        (answered(called({"a\x01": "x"})), "messages[1].tool_calls[0].function.arguments"),
        (answered(called({}, id="\x01")), ""),
        (hermes([WEATHER], call_text({"city": "a\x01"})), "messages[2].content"),
        (messages(U, A | {"reasoning_content": "\x01"}), "messages[1].reasoning_content"),
        (messages(U | {"name": "\x01"}, A), "messages[0].name"),
        (messages(U, A, tools=[WEATHER | {"x": "\x01"}]), "tools"),
    ],
)
def test_control_characters_wherever_the_model_may_read_them(
    line: dict[str, Any], path: str, tmp_path: Path
) -> None:
    row = read(tmp_path, line)
    if path:
        assert path in [place for place, _ in told(row)]
        assert isinstance(row, RejectedRow)
    else:  # the id of a call is in no template's text but by its tool turn
        assert isinstance(row, Row)


def test_what_the_model_never_reads_may_hold_anything(tmp_path: Path) -> None:
    row = accepted(tmp_path, chat_row("Hello", "Hi.", note="\x00\x1b\ufffd"))
    assert not row.warnings


@pytest.mark.parametrize("written", [b"\xef\xbf\xbd", b"\\ufffd", b"\\uFFFD"])
def test_broken_decoding_is_warned_of(written: bytes, tmp_path: Path) -> None:
    line = json.dumps(chat_row("Gr?n", "Hi.")).encode().replace(b"?", written)
    row = accepted(tmp_path, line)
    assert [path for path, _ in told(row)] == ["messages[0].content"]
    assert "U+FFFD" in row.warnings[0].reason


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ('{"a": 1, "a": 2}', [("", "a")]),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', [(".a", "b")]),
        ('[{"a": 1}, {"a": 1, "\\u0061": 2}]', [("[1]", "a")]),
        ('{"a": 1, "a": 1, "a": 1}', [("", "a")]),
        ('{"a\\u0022": 1, "b": "\\u0022"}', []),
        ('{"": 1, "": 2}', [("", "")]),
        ('{"a": "\\u0022\\u0022", "b": 1, "b": 2}', [("", "b")]),
    ],
)
def test_keys_that_stand_twice(text: str, repeated: list[tuple[str, str]]) -> None:
    assert repeated_keys(text) == repeated
    assert may_repeat(text, orjson.loads(text)) or not repeated
    line = f'{{"messages": {json.dumps([U, A])}, "note": {text}}}'.encode()
    assert nothing_odd([line], [orjson.loads(line)]) <= (not repeated)


pairs = st.recursive(
    st.sampled_from(['"x"', "1", '"\\u0022"', '"\\""', "null"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(
            st.tuples(st.sampled_from(['"a"', '"\\""', '"\\u0022"']), inner), max_size=3
        ).map(lambda items: "{" + ",".join(f"{key} : {item}" for key, item in items) + "}")
    ),
    max_leaves=8,
)


@settings(max_examples=500)
@given(texts=st.lists(pairs, min_size=1, max_size=4))
def test_the_count_of_quotes_misses_no_key_that_stands_twice(texts: list[str]) -> None:
    values = [orjson.loads(text) for text in texts]
    repeated = [text for text in texts if repeated_keys(text)]
    assert all(may_repeat(text, orjson.loads(text)) for text in repeated)
    if nothing_odd([text.encode() for text in texts], values):
        assert not repeated


contents = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(
    ["\x00", "\x1b", "\x7f", "\ufffd", "\\u0000", "\\b", "hf_" + "aB1" * 12, '"', call_text({})]
)
lines = st.builds(
    lambda user, answer, tool, note, ascii_only: json.dumps(
        messages(
            turn("system", f"<tools>{json.dumps(WEATHER)}</tools>"),
            turn("user", user),
            turn("assistant", call_text({"city": answer})),
            turn("tool", tool),
            turn("assistant", answer or "x"),
            note=note,
        ),
        ensure_ascii=ascii_only,
    ).encode(),
    contents,
    contents,
    contents,
    contents,
    st.booleans(),
)


@settings(max_examples=150)
@given(raw=st.lists(lines, min_size=1, max_size=5))
def test_a_row_is_judged_alike_alone_among_others_and_the_exact_way(
    raw: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    together = [_verdict(row) for row in read_rows([data_file(path, *raw)])]
    alone = [_verdict(row) for line in raw for row in read_rows([data_file(path, line)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.dataset.rows.read, "nothing_odd", lambda lines, values: False)
        exact = [_verdict(row) for row in read_rows([data_file(path, *raw)])]
    assert together == alone == exact


def _verdict(row: Row | RejectedRow) -> object:
    if isinstance(row, RejectedRow):
        return row.problems
    return row.messages, row.tools, row.meta, row.warnings, row.dialect


def test_a_row_nested_as_deep_as_orjson_writes_passes(tmp_path: Path) -> None:
    for levels, kind in ((250, Row), (260, RejectedRow), (1000, RejectedRow)):
        raw = json.dumps(chat_row("Hello", "Hi.", note=None)).encode()
        row = read(tmp_path, raw.replace(b"null", b"[" * levels + b"]" * levels))
        assert isinstance(row, kind)
