"""Keys and passwords in the data: found by kind, masked, and not seen where there are none."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from job.dataset.rows.secrets import find_secrets, mask_secrets
from tests.dataset.standin import turn
from tests.dataset.written import A, U, accepted, answered, called, messages, shared

_LETTERS = (string.ascii_letters + string.digits) * 4


def made_up(length: int) -> str:
    return _LETTERS[7 : 7 + length]


SECRETS = {
    "AWS access key id": ("AKIA" + "ABCDEFGHIJKLMN27", "ASIA" + "ABCDEFGHIJKLMN27"),
    "AWS secret access key": (
        f'aws_secret_access_key = "{made_up(40)}"',
        f"AWS_SECRET_ACCESS_KEY={made_up(40)}",
        f'{{"SecretAccessKey": "{made_up(40)}"}}',
    ),
    "GitHub token": ("ghp_" + made_up(36), "gho_" + made_up(36), "github_pat_" + made_up(59)),
    "GitLab token": ("glpat-" + made_up(20),),
    "Hugging Face token": ("hf_" + made_up(34),),
    "Anthropic key": ("sk-ant-api03-" + made_up(90),),
    "OpenAI key": ("sk-" + made_up(48), "sk-proj-" + made_up(100), "sk-or-v1-" + "a1" * 32),
    "Slack token": ("xoxb-123456789012-123456789012-" + made_up(24),),
    "Google API key": ("AIza" + made_up(35),),
    "Stripe key": ("sk_live_" + made_up(24), "rk_live_" + made_up(24)),
    "npm token": ("npm_" + made_up(36),),
    "SendGrid key": (f"SG.{made_up(22)}.{made_up(43)}",),
    "JSON web token": (f"eyJ{made_up(20)}.eyJ{made_up(30)}.{made_up(30)}",),
    "private key": (
        f"-----BEGIN RSA PRIVATE KEY-----\n{made_up(64)}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{made_up(64)}",
    ),
    "password in a URL": ("postgres://joe:hunter2@db.example.org/x", "redis://:hunter2@cache:6379"),
}
EACH = [(kind, secret) for kind, several in SECRETS.items() for secret in several]


@pytest.mark.parametrize(("kind", "secret"), EACH)
def test_each_is_found_and_masked_wherever_it_stands(kind: str, secret: str) -> None:
    for text in (
        secret,
        f"The key is {secret} for now.",
        json.dumps(f"a\n{secret}\tb"),
        json.dumps({"key": secret}),
        json.dumps(json.dumps({"key": f"a\n{secret}"})),
    ):
        assert find_secrets(text.encode()) == (kind,), text
        masked = mask_secrets(text)
        assert "***" in masked
        assert not find_secrets(masked.encode())
        assert made_up(12) not in masked
        assert "hunter2" not in masked


def test_what_stands_around_a_secret_stays() -> None:
    assert mask_secrets("a postgres://joe:hunter2@db/x b") == "a postgres://joe:***@db/x b"
    assert mask_secrets(f"x hf_{made_up(34)} y") == "x *** y"
    key = made_up(40)
    assert mask_secrets(f"aws_secret_access_key={key};") == "aws_secret_access_key=***;"
    both = f"{SECRETS['AWS access key id'][0]}:{key}"
    assert find_secrets(both.encode()) == ("AWS secret access key", "AWS access key id")
    assert key not in mask_secrets(both)


@pytest.mark.parametrize(
    "text",
    [
        "from sklearn, or sk-learn, or scikit-learn-classification-pipelines",
        "hf_hub_download(repo_id, filename) and hf_transfer",
        "a task-proj-" + made_up(40),
        "risk-assessment-of-the-whole-european-market",
        "sk-" + "kebab-case-" * 5,
        "arn:aws:iam::123456789012:user/AKIA",
        "https://user:password@example.org/ and https://user:<token>@example.org",
        "postgres://joe:${DB_PASSWORD}@db/x and postgres://joe:{password}@db/x",
        "https://example.org/a?mail=joe@example.org and mailto:joe@example.org",
        "git@github.com:joe/repo.git at http://host:8080/a@b",
        "npm_config_registry and SG.1 and xoxb- and AIza",
        "eyJhbGciOiJIUzI1NiJ9",
        "-----BEGIN PUBLIC KEY-----",
        "aws_secret_access_key = <your key>",
        "the checksum is " + "a1" * 20,
        "x" + "ghp_" + made_up(36),
    ],
)
def test_what_only_looks_like_one(text: str) -> None:
    assert find_secrets(json.dumps(text).encode()) == ()
    assert mask_secrets(text) == text


def test_a_row_with_secrets_is_warned_of_by_kind_and_turn(tmp_path: Path) -> None:
    token, password = SECRETS["GitHub token"][0], SECRETS["password in a URL"][0]
    line = messages(U, turn("assistant", f"Use {token}"), note=password)
    for row in (
        accepted(tmp_path, line),
        accepted(tmp_path, shared(("human", "x"), ("gpt", f"Use {token}"), note=password)),
    ):
        [first, second] = row.warnings
        assert first.path.endswith("s[1]")
        assert first.reason == "holds what looks like a secret: GitHub token"
        assert second.path == "note"
        assert made_up(12) not in str(row.warnings)
        assert "hunter2" not in str(row.warnings)


def test_a_secret_beside_a_whole_number_that_json_readers_cut(tmp_path: Path) -> None:
    arguments = {"key": SECRETS["GitHub token"][0], "n": 2**70}
    row = accepted(tmp_path, answered(called(arguments), note="x"))
    assert any("GitHub token" in found.reason for found in row.warnings)


def test_rows_without_secrets_are_not_warned_of(tmp_path: Path) -> None:
    assert not accepted(tmp_path, messages(U, A)).warnings


pieces = st.sampled_from([*"AKghp_of-.:/@\\\"' \nx019", *(secret[:30] for _, secret in EACH)])


@settings(max_examples=500)
@example(SECRETS["Stripe key"][0] + SECRETS["private key"][1])
@given(
    st.lists(pieces).map("".join) | st.lists(st.sampled_from([s for _, s in EACH])).map(" ".join)
)
def test_nothing_makes_the_search_fail_and_masking_is_whole(text: str) -> None:
    assert not find_secrets(mask_secrets(text).encode())


def test_text_that_is_no_utf_8_is_searched_and_masked() -> None:
    token = SECRETS["GitHub token"][0]
    assert find_secrets(b"\xff " + token.encode()) == ("GitHub token",)
    assert mask_secrets(f"\ud800 {token}") == "\ud800 ***"
