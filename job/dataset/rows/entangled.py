"""Schemas that refer to themselves so often that checking a call against them would never end.

A validator follows every reference anew, so references that branch multiply: two in each of twenty
levels are a million ways.
"""

from __future__ import annotations

from math import log
from typing import Any, Final

from job.dataset.rows.hermes import too_deep

MOST_WAYS: Final = 20_000
"""Parts of a schema that one call is held against, references followed; some 0.1 s."""

_BRANCHING: Final = {"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas"}
_DATA: Final = {"const", "default", "enum", "examples"}


class References:
    """How the references of one schema multiply."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._known: dict[str, int] = {}
        self._open: set[str] = set()
        self._branching: set[int] = set()  # where branches refer, by the object there
        self._recursive = False
        self.outside: set[str] = set()
        """What it refers to beyond itself."""
        self.ways = self._all_ways()
        """Parts of the schema, each as often as it is referred to; a circle is followed once."""

    def multiply(self, arguments: dict[str, Any]) -> bool:
        """Whether these arguments nest so deep that following a circle would take too long."""
        if not self._recursive or len(self._branching) < 2:
            return False
        return too_deep(arguments, int(log(MOST_WAYS) / log(len(self._branching))))

    def _all_ways(self) -> int:
        try:
            return self._count(self._root, branching=False)
        except RecursionError:  # hundreds of references, one leading to the next
            return MOST_WAYS + 1

    def _count(self, node: object, *, branching: bool) -> int:
        if isinstance(node, list):
            ways = sum(self._count(item, branching=branching) for item in node)
        elif isinstance(node, dict):
            ways = 1 + sum(self._under(node, key, branching) for key in node)
        else:
            ways = 0
        return min(ways, MOST_WAYS + 1)

    def _under(self, node: dict[str, Any], key: str, branching: bool) -> int:
        item = node[key]
        if key in _DATA:
            return 0
        if key == "$ref" and isinstance(item, str):
            if branching:
                self._branching.add(id(node))
            if not item.startswith("#"):
                self.outside.add(item)
            return self._target(item)
        return self._count(item, branching=branching or key in _BRANCHING)

    def _target(self, reference: str) -> int:
        if reference in self._open:
            self._recursive = True
            return 1
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self._count(self._lookup(reference), branching=False)
            self._open.discard(reference)
        return self._known[reference]

    def _lookup(self, reference: str) -> object:
        """What a reference within the schema names; `None` for others."""
        node: object = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                node = node.get(name) if isinstance(node, dict) else None
        return node
