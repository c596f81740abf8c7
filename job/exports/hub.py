"""A copy of the adapter on a model hub, in one commit, for those who take models from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from job.config import Settings
from job.errors import AccessDenied, JobError, Problem, Unavailable
from job.redact import redact

_WHERE: Final = "FORGE_PUSH_TO_HUB"
_HINT: Final = "set HF_TOKEN to a token that may write there"
_OVERLOADED: Final = 429


def offline(environ: Mapping[str, str]) -> bool:
    """As the hub's client reads it."""
    return environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def denied(settings: Settings) -> Iterator[Problem]:
    """What the token says against pushing. What a fine-grained one may is seen on pushing only.

    Raises `AccessDenied` for a token that the hub refuses, and `Unavailable`.
    """
    from huggingface_hub import HfApi, get_token

    assert settings.push_to_hub is not None
    if get_token() is None:
        yield Problem(_WHERE, "there is no token for the hub", _HINT)
        return
    with _hub_errors(settings.push_to_hub):
        user = HfApi().whoami()
    if _role(user) == "read":
        yield Problem(_WHERE, f"the token of {user.get('name')} may only read", _HINT)
    owner = settings.push_to_hub.partition("/")[0]
    mine = {user.get("name"), *(org.get("name") for org in user.get("orgs") or ())}
    if owner.lower() not in {str(name).lower() for name in mine}:
        yield Problem(_WHERE, f"{user.get('name')} is not {owner}, and no member of it", _HINT)


def push(settings: Settings, folder: Path, message: str) -> tuple[str, str]:
    """The address and the commit. The same files again make no second commit.

    Raises `AccessDenied`, `Unavailable`, and `JobError` for what else the hub refuses.
    """
    from huggingface_hub import HfApi

    repository = settings.push_to_hub
    assert repository is not None
    with _hub_errors(repository):
        api = HfApi()
        api.create_repo(repository, private=settings.hub_private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return redact(f"{api.endpoint}/{repository}"), commit.oid


def _role(user: Mapping[str, Any]) -> str:
    token = (user.get("auth") or {}).get("accessToken") or {}
    return str(token.get("role", ""))


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    try:
        yield
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        # One of a file's upload is wrapped by the client's own.
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(error, RuntimeError) and not isinstance(answer, (httpx.HTTPError, OSError)):
            raise
        status = answer.response.status_code if isinstance(answer, HfHubHTTPError) else None
        if status in (401, 403, 404):
            found = f"the hub refuses {repository} ({status})"
            raise AccessDenied(Problem(_WHERE, found, _HINT)) from error
        found = f"{repository} can't be pushed: {redact(str(error))}"
        if status is not None and status < 500 and status != _OVERLOADED:
            raise JobError(Problem(_WHERE, found)) from error
        raise Unavailable(Problem(_WHERE, found, "start the run again")) from error
