"""A real headless Chromium that opens a page from a file, and what it asked the network for."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # Chromium's own refuses to run as root; the pages are the tests' own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing leaves the machine
    "--virtual-time-budget=2000",  # milliseconds; handlers and timers of the page have run
)
_POLICY: Final = re.compile(rb'<meta http-equiv="Content-Security-Policy"[^>]*>')
_BROWSER_ITSELF: Final = "not an origin"
"""The initiator of requests for updates and the like, in Chromium's network log."""
_TIMEOUT: Final = 60  # seconds


@dataclass(frozen=True)
class Opened:
    """A page after it was loaded."""

    dom: str
    requests: tuple[str, ...]
    """The URLs that the page itself asked for."""


@dataclass(frozen=True)
class Browser:
    program: str

    @classmethod
    def installed(cls) -> Browser:
        """Skips the test where there is none; fails it in CI (the variable `CI` is set)."""
        for program in _PROGRAMS:
            if found := shutil.which(program):
                return cls(found)
        reason = "no Chromium: scripts/system_packages.sh installs it (on Debian, as root)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    def open(self, page: bytes, *, dark: bool = False, width: int = 1100) -> Opened:
        """Load a page with a fresh profile. `width` is in CSS pixels, 500 or more."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            log = Path(folder, "network.json")
            dom = self._load(
                page,
                folder,
                "--dump-dom",
                f"--log-net-log={log}",
                f"--window-size={width},900",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            )
            return Opened(dom.decode(), _asked_for(log))

    def printed(self, page: bytes) -> bytes:
        """The page as PDF."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = Path(folder, "page.pdf")
            self._load(page, folder, f"--print-to-pdf={file}")
            return file.read_bytes()

    def _load(self, page: bytes, folder: str, *flags: str) -> bytes:
        """What the program writes to its output."""
        file = Path(folder, "page.html")
        file.write_bytes(page)
        done = subprocess.run(
            [self.program, *_FLAGS, *flags, f"--user-data-dir={folder}/profile", file.as_uri()],
            env=os.environ | {"HOME": folder},
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def evaluate(self, page: bytes, expression: str, **how: Any) -> Any:
        """The value of a JavaScript expression in the loaded page, by way of JSON.

        It is a copy of the page without its security policy, which would stop the probe: whatever
        the data smuggled in would run too.
        """
        probe = f"document.documentElement.dataset.probe = JSON.stringify({expression})"
        script = f"<script>addEventListener('load', () => {{ {probe} }})</script></body>"
        bare, policies = _POLICY.subn(b"", page)
        assert policies == 1
        head, end, tail = bare.rpartition(b"</body>")
        assert end
        dom = self.open(head + script.encode() + tail, **how).dom
        found = re.search(r'<html[^>]* data-probe="([^"]*)"', dom)
        assert found is not None, "the probe did not run"
        return json.loads(html.unescape(found[1]))

    def on_a_phone(self, page: bytes, expression: str) -> Any:
        """The value of a JavaScript expression about the page, `doc`, which is 375 CSS pixels wide:
        in a frame, since a window can't be as narrow. With its own security policy."""
        frame = (
            '<!doctype html><meta http-equiv="Content-Security-Policy" content="">'
            "<body><iframe style='width: 375px; height: 800px; border: 0' "
            f'srcdoc="{html.escape(page.decode())}"></iframe></body>'
        )
        look = f"(doc => {expression})(document.querySelector('iframe').contentDocument)"
        return self.evaluate(frame.encode(), look)


def _asked_for(log: Path) -> tuple[str, ...]:
    events = json.loads(log.read_bytes())["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return tuple(each["url"] for each in requests if each["initiator"] != _BROWSER_ITSELF)
