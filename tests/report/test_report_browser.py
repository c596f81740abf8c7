"""The report as a real browser shows it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser import Browser
from tests.report.test_report import EVIL, a_record, a_report

PWNED = (
    "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
    "<img src='https://attacker.invalid/x.png'>"
)
HOSTILE = EVIL + PWNED
LOOK = """{
  title: document.title,
  wide: document.documentElement.scrollWidth - innerWidth,
  chart: [...document.querySelectorAll('figure path[style*="--train"]')].filter(
    each => each.getBoundingClientRect().width > 0).slice(0, 1).map(line => {
    const box = line.getBoundingClientRect();
    return [box.width, box.height, getComputedStyle(line).stroke];
  }),
  hostile: document.querySelector('h1').textContent,
  elements: document.querySelectorAll('script, img').length,
}"""


@pytest.fixture(scope="module")
def browser() -> Browser:
    return Browser.installed()


@pytest.fixture(scope="module")
def page() -> bytes:
    return a_report(a_record(run_id=HOSTILE))["report.html"]


@pytest.mark.parametrize(("dark", "width"), [(False, 1100), (True, 500)])
def test_the_chart_is_drawn_and_data_stay_text(
    browser: Browser, page: bytes, dark: bool, width: int
) -> None:
    look: dict[str, Any] = browser.evaluate(page, LOOK, dark=dark, width=width)
    (box,) = look["chart"]
    assert box[0] > width / 4
    assert box[1] > 20
    assert box[2] == ("rgb(122, 167, 255)" if dark else "rgb(37, 99, 235)")
    assert look["wide"] <= 0, "the page scrolls sideways"
    assert look["hostile"] == f"Run {HOSTILE}"
    assert look["title"] == f"Run {HOSTILE}"
    assert look["elements"] == 1, "the probe alone"


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, page: bytes) -> None:
    look = browser.on_a_phone(
        page,
        """({
          width: doc.documentElement.clientWidth,
          page: doc.documentElement.scrollWidth,
          drawings: [...doc.querySelectorAll('figure svg')].map(
            each => each.getBoundingClientRect().width).filter(Boolean),
        })""",
    )
    assert look["width"] == 375
    assert look["page"] <= 375
    assert look["drawings"]
    assert all(300 < width <= 375 for width in look["drawings"])


def test_it_can_be_printed(browser: Browser, page: bytes) -> None:
    printed = browser.printed(page)
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 1


def test_the_page_runs_nothing_and_asks_for_nothing(browser: Browser, page: bytes) -> None:
    opened = browser.open(page)
    assert "<title>pwned</title>" not in opened.dom
    assert opened.requests == ()


def test_the_browser_would_have_told(browser: Browser) -> None:
    """Text that isn't escaped, in a page without a policy: both traps of the tests above snap."""
    opened = browser.open(f"<!doctype html><title>safe</title>{PWNED}".encode())
    assert "<title>pwned</title>" in opened.dom
    assert opened.requests == ("https://attacker.invalid/x.png",)
