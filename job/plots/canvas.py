"""A matplotlib figure from its making to its SVG. No global state, no script, no date.

What is drawn for a page has its colours as CSS variables of the page (`var(--train)`), so that
one drawing serves light and dark. Units are CSS pixels.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS: Final = {
    "ink": "#64748b",
    "quiet": "#768390",
    "rule": "#94a3b8",
    "train": "#3b82f6",
    "eval": "#e8590c",
    "good": "#2f9e44",
    "bad": "#e03131",
    "open": "#b7791f",
}
"""Names of the page's variables, and what they are where there is no page: readable on white and
on near-black."""
_SENTINEL: Final = {name: f"#0102{place:02x}" for place, name in enumerate(_COLORS)}
_FONT: Final = re.compile(r"font-family: [^;]*;? ?")
_LONG: Final = re.compile(r"(\d+\.\d\d)\d+")
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_FONT_SIZE: Final = 12


@dataclass
class Canvas:
    """A figure under way. Draw on `axes` with the colours that `color` gives."""

    figure: Figure
    axes: Axes
    titles: dict[str, str] = field(default_factory=dict)

    def color(self, name: str) -> str:
        """Of the page's variable `name`."""
        return _SENTINEL[name]

    def tip(self, artist: Any, text: str) -> None:
        """What is shown where the pointer rests on `artist`."""
        name = f"tip-{len(self.titles)}"
        artist.set_gid(name)
        self.titles[name] = text


def drawn(
    draw: Callable[[Canvas], None], *, size: tuple[int, int], label: str, standalone: bool = False
) -> bytes:
    """What `draw` draws, as SVG of `size` CSS pixels that scales to the width of its place.

    `label` says in words what is seen. `standalone`: a file with colours and a font of its own.
    """
    with _quiet():
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with rc_context(_style(f"{size} {label}")):
            figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")
            FigureCanvasSVG(figure)
            canvas = Canvas(figure, figure.add_subplot())
            draw(canvas)
            buffer = io.BytesIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return _finished(buffer.getvalue(), canvas.titles, label, standalone)


def _style(salt: str) -> Any:
    """Settings of matplotlib; its type of their names is too narrow for a dict that is built."""
    rule, quiet = _SENTINEL["rule"], _SENTINEL["quiet"]
    return {
        "svg.fonttype": "none",  # text stays text: it is searched, read aloud, and small
        "svg.hashsalt": salt,  # the same drawing has the same bytes, and two have other ids
        "text.parse_math": False,
        "text.color": quiet,
        "font.size": _FONT_SIZE,
        "axes.edgecolor": rule,
        "axes.labelcolor": quiet,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.prop_cycle": "cycler('color', ['#000000'])",
        "grid.color": rule,
        "grid.alpha": 0.35,
        "grid.linewidth": 1,
        "xtick.color": quiet,
        "ytick.color": quiet,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "legend.frameon": False,
        "legend.fontsize": _FONT_SIZE,
        "lines.linewidth": 2,
        "path.simplify": False,  # thinned already, in a way that keeps the extremes
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """matplotlib tells of fonts and caches what nobody who runs a job can use."""
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _finished(svg: bytes, titles: Mapping[str, str], label: str, standalone: bool) -> bytes:
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib's, made a moment ago
    for child in list(root):
        if child.tag.endswith("}metadata") or child.find(f"{{{_SVG}}}style") is not None:
            root.remove(child)
    used = {element.get(_XLINK, "")[1:] for element in root.iter()}
    for element in root.iter():
        _tidy(element, used, titles)
    root.attrib.pop("height")
    root.attrib.pop("width")
    root.set("role", "img")
    root.set("aria-label", label)
    if standalone:
        root.set("width", root.get("viewBox", "").split()[2])
        root.set("style", "font-family: system-ui, sans-serif")
        root.insert(0, _title(label))
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK[1:].partition("}")[0])
    text = ET.tostring(root, encoding="unicode")
    for name, sentinel in _SENTINEL.items():
        text = text.replace(sentinel, _COLORS[name] if standalone else f"var(--{name})")
    return text.encode()


def _tidy(element: ET.Element, used: set[str], titles: Mapping[str, str]) -> None:
    name = element.get("id", "")
    if name in titles:
        element.insert(0, _title(titles[name]))
    if name and name not in used and not element.tag.endswith("}clipPath"):
        del element.attrib["id"]  # unique in a page only if it is made so, as those used are
    if style := element.get("style"):
        element.set("style", _FONT.sub("", style))
    for attribute in ("d", "x", "y", "transform"):
        if value := element.get(attribute):
            element.set(attribute, _LONG.sub(r"\1", value).replace(" \n", "\n"))
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None


def _title(text: str) -> ET.Element:
    title = ET.Element(f"{{{_SVG}}}title")
    title.text = text
    return title
