"""Calls that are written as Python source: `mv(source='a.txt', destination='temp')`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from job.demo.hermes import Unusable


def read_call(source: str, functions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """`name` and `arguments` of a call; nothing is run. Raises `Unusable`.

    Arguments without a name are named in the order in which `functions` declares them.
    """
    try:
        call = ast.parse(source, mode="eval").body
    except SyntaxError:
        raise Unusable("answer is not one call", source) from None
    if not isinstance(call, ast.Call):
        raise Unusable("answer is not one call", source)
    name = ast.unparse(call.func)
    declared = list(functions.get(name, {}).get("parameters", {}).get("properties", {}))
    if len(call.args) > len(declared):
        raise Unusable("answer has an argument without a name", source)
    values = dict(zip(declared, call.args, strict=False))
    values |= {keyword.arg or "**": keyword.value for keyword in call.keywords}
    return {"name": name, "arguments": {key: _literal(item) for key, item in values.items()}}


def _literal(node: ast.expr) -> Any:
    try:
        return _as_json(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError):
        raise Unusable("answer has an argument that is no value", ast.unparse(node)) from None


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(type(value).__name__)
