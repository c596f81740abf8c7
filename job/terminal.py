"""Text from storage on a terminal."""

from __future__ import annotations

import re
from typing import Final, TextIO

BLOCKS: Final = "▁▂▃▄▅▆▇█"
"""Of a curve, lowest first."""
_LINE_END: Final = re.compile(r"[ \t\r]*\n[ \t\r\n]*")
_PLAIN: Final = str.maketrans(BLOCKS + "–…", "_.:-=+*#" + "-~")


_CONTROL: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}


def harmless(text: str) -> str:
    """Lines in which control characters are written out: with one, the name of an object or a word
    of the data would repaint the terminal."""
    return text.translate(_CONTROL)


def printable(text: str) -> str:
    """One line with what would move the cursor or colour the screen written out: names and reasons
    come from whoever could write to the bucket. A reason of several lines has blanks between them,
    as in the termination message."""
    text = _LINE_END.sub(" ", text)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def encodable(text: str, out: TextIO) -> str:
    """What `out` has letters for: a name in a foreign script must not end the command."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN)
    return text.encode(encoding, "replace").decode(encoding)
