"""The mask preview as a real browser shows it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from job.dataset.review.preview import PreviewConversation, PreviewToken, mask_preview
from tests.browser import Browser

TRAPS = (
    "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<img src='https://attacker.invalid/x.png'>"
)
HOSTILE = (
    f"{TRAPS}</mark></i></pre></details></style></title></svg><style>@import 'https://attacker.invalid/x.css';"
    "mark { all: unset }</style>"
    '"><base href="https://attacker.invalid/"><meta http-equiv=refresh content="0;url=//a.invalid">'
    "{{ 7*7 }} {% raw %} &lt;b&gt; \"'&"
)
TALKS = (
    (
        "<|im_start|>user\nWeather in Zürich 🌦?<|im_end|>\n",
        "It is 7 °C.\n\tBring a coat.<|im_end|>",
    ),
    (f"\nThe page says {HOSTILE}", f"  I see {HOSTILE}, indeed.\n"),
    ("Read \u202ethis\u2066 \u200bway", "ab\u202ecd\u2069"),
)
SPELLED = "ab[U+202E]cd[U+2069]"
LOOK = """{
  title: document.title,
  heading: document.querySelector('h1').textContent,
  scripts: document.querySelectorAll('script, img, base').length,
  wide: document.documentElement.scrollWidth - innerWidth,
  talks: [...document.querySelectorAll('details.conversation')].map(talk => ({
    where: talk.querySelector('summary bdi').textContent,
    meta: talk.querySelector('dd').textContent,
    all: talk.querySelector('pre').innerHTML,
    trained: [...talk.querySelectorAll('pre mark')].map(mark => mark.textContent).join(''),
    strip: [...talk.querySelectorAll('svg rect')].map(rect => rect.getBoundingClientRect().width),
  })),
}"""
STYLES = """['pre.text', 'pre.text > i', 'pre.text mark', 'pre.text mark i'].map(place => {
  const style = getComputedStyle(document.querySelector(place));
  const space = `${style.whiteSpaceCollapse} ${style.textWrapMode}`;
  return [style.color, style.backgroundColor, style.textDecorationLine, space];
}).concat([[getComputedStyle(document.querySelector('pre .n'), '::before').content]])"""


@pytest.fixture(scope="module")
def browser() -> Browser:
    return Browser.installed()


def tokens(text: str, trained: bool) -> list[PreviewToken]:
    """Three characters each, so that tags are torn apart too."""
    return [PreviewToken(text[at : at + 3], trained) for at in range(0, len(text), 3)]


@pytest.fixture(scope="module")
def page() -> bytes:
    conversations = []
    for prompt, answer in TALKS:
        made = (*tokens(prompt, False), *tokens(answer, True))
        supervised = sum(piece.trained for piece in made)
        conversations.append(
            PreviewConversation(
                f"{HOSTILE}.jsonl:1", HOSTILE, len(made), supervised, made, {HOSTILE: HOSTILE}
            )
        )
    summary = {"rows": 3, "counts": {HOSTILE: 3}, "lengths": {HOSTILE: 3, "p50": 7}}
    return mask_preview(conversations, summary, title=HOSTILE)


@pytest.fixture(scope="module")
def look(browser: Browser, page: bytes) -> dict[str, Any]:
    found: dict[str, Any] = browser.evaluate(page, LOOK)
    return found


def test_what_is_marked_is_what_is_trained(look: dict[str, Any]) -> None:
    marked = [talk["trained"] for talk in look["talks"]]
    assert marked[:2] == [answer for _, answer in TALKS[:2]]
    assert re.sub(r"U\+\w{4}", r"[\g<0>]", marked[2]) == SPELLED
    assert all(width > 0 for talk in look["talks"] for width in talk["strip"])
    assert [len(talk["strip"]) for talk in look["talks"]] == [1, 1, 1]


def test_data_stay_text(look: dict[str, Any]) -> None:
    assert len(look["talks"]) == len(TALKS)
    assert look["title"] == look["heading"] == HOSTILE
    assert {talk["where"] for talk in look["talks"]} == {f"{HOSTILE}.jsonl:1"}
    assert {talk["meta"][:300] for talk in look["talks"]} == {HOSTILE[:300]}
    assert look["scripts"] == 1, "the probe alone"


def test_the_page_runs_nothing_and_asks_for_nothing(browser: Browser, page: bytes) -> None:
    opened = browser.open(page)
    assert "<title>pwned</title>" not in opened.dom
    assert opened.requests == ()
    assert opened.dom.count('<details class="conversation"') == len(TALKS)


def test_the_browser_would_have_told(browser: Browser) -> None:
    """Data that aren't escaped, in a page without a policy: what the tests look for is there."""
    opened = browser.open(f"<!doctype html><title>safe</title><p>{TRAPS}".encode())
    assert "<title>pwned</title>" in opened.dom
    assert opened.requests == ("https://attacker.invalid/x.png",)
    assert "https://a.invalid/" in browser.open(f"<!doctype html>{HOSTILE}".encode()).requests


@pytest.mark.parametrize("dark", [False, True])
def test_trained_text_stands_out_and_all_can_be_read(
    browser: Browser, page: bytes, dark: bool
) -> None:
    plain, plain_shade, trained, trained_shade, mark = browser.evaluate(page, STYLES, dark=dark)
    assert trained[2] == "underline", "for those who can't tell the colors apart"
    assert plain[2] == "none"
    grounds = [style[1] for style in (plain, plain_shade, trained, trained_shade)]
    assert len(set(grounds)) == 4, "tokens and their states have grounds of their own"
    for style in (plain, plain_shade, trained, trained_shade):
        assert contrast(style[0], style[1]) >= 4.5, "WCAG 2.2, 1.4.3"
        assert style[3] == "preserve wrap", "white space as it is, long lines wrapped"
    assert mark == ['"↵"']
    dim = [luminance(color) < 0.5 for color in grounds]
    assert dim == [dark] * 4


def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, page: bytes) -> None:
    assert browser.evaluate(page, LOOK, width=500)["wide"] <= 0


def test_the_middle_of_a_long_conversation_is_left_out_between_its_ends(browser: Browser) -> None:
    long = tuple(PreviewToken(f"{n} ", n > 4500) for n in range(5000))
    each = PreviewConversation("data.jsonl:1", "train", 5000, 499, long)
    found = browser.evaluate(
        mask_preview([each] * 20, {}, title="long"),
        "[...document.querySelectorAll('details.conversation')].map(each => each.textContent)",
    )
    assert len(found) == 20
    for text in found:
        numbers = [int(n) for n in re.findall(r"\b\d+(?= )", text.partition(")")[2])]
        gaps = [(a, b) for a, b in pairwise(numbers) if b != a + 1]
        assert gaps == [(2047, 904), (904, 0), (0, 2952)], "904 of them, 0 trained"


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)` as WCAG defines it."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", color)
    assert found is not None, f"{color} is not opaque"
    shares = [int(part) / 255 for part in found.groups()]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
