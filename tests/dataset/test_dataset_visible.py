"""Characters that hide or reorder text are spelled out; secrets are covered, whatever is around."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.dataset.review.visible import hide, plain, visible
from job.redact import Redactor

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
PASSWORD = "correct-horse-battery-staple"
mask = Redactor({"DB_PASSWORD": PASSWORD, "MULTI_LINE_KEY": "first line\nsecond line"}).text


def read_back(markup: str) -> str:
    """The text that `markup` was made of."""
    codes = re.sub(r"<b>U\+([0-9A-F]+)</b>", lambda found: chr(int(found[1], 16)), markup)
    bare = re.sub(r'<span class="[nt]">(\s)</span>', r"\1", codes)
    assert "<" not in bare
    return re.sub(r"&(lt|gt|amp|#3[49]);", lambda found: html.unescape(found[0]), bare)


@pytest.mark.parametrize(
    ("character", "code"),
    [
        ("\u202e", "U+202E"),  # right-to-left override
        ("\u2066", "U+2066"),
        ("\u200b", "U+200B"),  # zero-width space
        ("\ufeff", "U+FEFF"),
        ("\u00a0", "U+00A0"),
        ("\u2028", "U+2028"),
        ("\r", "U+000D"),
        ("\x00", "U+0000"),
        ("\x1b", "U+001B"),
        ("\x85", "U+0085"),
        ("\ud800", "U+D800"),  # a lone surrogate: no UTF-8 for it
        ("\ue000", "U+E000"),
        ("\U000e0041", "U+E0041"),  # a tag character
        ("\U000e0100", "U+E0100"),  # a variation selector
        ("\u3164", "U+3164"),  # a letter that draws nothing
    ],
)
def test_what_can_not_be_seen_is_spelled_out(character: str, code: str) -> None:
    assert visible(f"a{character}b") == f"a<b>{code}</b>b"
    assert plain(f"a{character}b") == f"a[{code}]b"


@pytest.mark.parametrize(
    "text", ["Zürich", "日本語", "祝你好运", "שלום", "7 °C", "👍🏽", "\u3000", "�"]
)
def test_text_of_any_language_stays(text: str) -> None:
    assert visible(text) == plain(text) == text


def test_line_breaks_and_tabs_stay_and_are_marked() -> None:
    assert visible("a\n\tb") == 'a<span class="n">\n</span><span class="t">\t</span>b'


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_read_back(text: str) -> None:
    assert read_back(visible(text)) == text
    visible(text).encode()
    plain(text).encode()


def test_secrets_are_covered_character_by_character() -> None:
    text = f"use {TOKEN}, or postgres://me:{PASSWORD}@db/x"
    assert hide(text, mask) == f"use {'•' * len(TOKEN)}, or postgres://{'•' * 31}@db/x"


def test_a_secret_over_several_lines() -> None:
    assert hide("key: first line\nsecond line.", mask) == f"key: {'•' * 22}."


def test_words_of_a_secret_elsewhere_do_not_uncover_it() -> None:
    text = f"A correct horse, a battery, a staple: {PASSWORD}. The horse is correct."
    assert hide(text, mask) == text.replace(PASSWORD, "•" * len(PASSWORD))
    # What lies between the two could be taken for the middle of the first.
    text = f"{PASSWORD}-battery-{PASSWORD}"
    assert hide(text, mask) == "•" * len(text)


def test_text_that_repeats_itself_stays() -> None:
    text = "ab cd " * 500 + TOKEN + " ab cd" * 500
    assert hide(text, mask) == text.replace(TOKEN, "•" * len(TOKEN))


def test_without_secrets_nothing_is_changed() -> None:
    assert hide("nothing to hide", mask) == "nothing to hide"
    assert hide("", mask) == ""


WORDS = st.lists(st.sampled_from(["horse", "correct", "-", " ", "staple.", "\n", "x", "://", "@"]))


@given(st.lists(st.tuples(WORDS.map("".join), st.sampled_from([TOKEN, PASSWORD])), max_size=5))
def test_no_secret_survives(parts: list[tuple[str, str]]) -> None:
    text = "".join(f"{before} {secret} " for before, secret in parts)
    covered = hide(text, mask)
    assert len(covered) == len(text)
    assert all(c in (t, "•") for c, t in zip(covered, text, strict=True))
    assert TOKEN not in covered
    assert PASSWORD not in covered
