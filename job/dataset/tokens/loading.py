"""The chat template of a model folder: read from its files, then tried out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from job.dataset.tokens.probe import NotAChatTemplate, probed, shows_all
from job.dataset.tokens.template import DEFAULT, ChatTemplate
from job.errors import Problem, SettingsError


def load_template(
    model_dir: Path, added_tokens: Sequence[str], other: str | None = None
) -> ChatTemplate:
    """From `chat_template.jinja` or `tokenizer_config.json`, tried on probe conversations.

    `added_tokens` are those that the tokenizer takes out of text as they are. `other` is taken
    instead of a template that hides tools or thinking. Raises `SettingsError` naming
    `FORGE_MODEL`.
    """
    config = _tokenizer_config(model_dir)
    sources = _sources(model_dir, config)
    if DEFAULT not in sources:
        raise _unusable(
            model_dir,
            "has no chat template",
            "chat_template.jinja, or chat_template in tokenizer_config.json; a base model has "
            "none: take its instruct variant",
        )
    try:
        own = probed(ChatTemplate(sources, _special_tokens(config)), added_tokens)
        if other is None or shows_all(own):
            return own
        replaced = ChatTemplate({DEFAULT: other}, own.special_tokens, replaces_own=True)
        return probed(replaced, added_tokens)
    except NotAChatTemplate as error:
        raise _unusable(model_dir, f"has a chat template that {error}") from error


def _sources(model_dir: Path, config: dict[str, Any]) -> dict[str, str]:
    """Templates by name. A file wins over the configuration, as in transformers."""
    files = {DEFAULT: model_dir / "chat_template.jinja"}
    for path in sorted(model_dir.glob("additional_chat_templates/*.jinja")):
        files[path.stem] = path
    found = dict(_configured(config.get("chat_template")))
    for name, path in files.items():
        if path.is_file():
            found[name] = _text(path)
    return found


def _configured(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield DEFAULT, value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                yield str(item.get("name", DEFAULT)), item["template"]


def _tokenizer_config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(_text(path))
    except ValueError as error:
        raise _unusable(path, f"is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise _unusable(path, "is not a JSON object")
    return config


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(path, f"can't be read: {error}") from error


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _unusable(path: Path, found: str, hint: str = "") -> SettingsError:
    return SettingsError(Problem("FORGE_MODEL", f"{path}: {found}", hint))
