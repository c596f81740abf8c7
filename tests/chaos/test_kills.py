"""A short spell under fire; `make chaos` is the long one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.runs import VARIANTS, Ground, Reference, under_fire
from tests.chaos.scenario import Tally

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(
    place: Ground, references: Callable[[str], Reference], variant: str
) -> None:
    tally = Tally()
    under_fire(place, variant, references(variant), seed=7, strikes=6, tally=tally)
    assert tally.violations == []
    assert (tally.lost_commits, tally.false_completions) == (0, 0)
    assert tally.identical == tally.runs == 1
    assert tally.total_kills >= 1  # how many more is a matter of the machine's speed


def test_a_forked_attempt_is_a_plain_one(
    place: Ground, references: Callable[[str], Reference]
) -> None:
    """What the suite proves of its fork server's children holds of `python -m job`."""
    from job.storage import open_storage
    from tests.chaos.observer import result_of
    from tests.chaos.runs import BUCKET
    from tests.e2e.jobs import run

    env = place.settings("plain-process", "dropout")
    ended = run(env, place.folder / "plain-process.log")
    assert ended.code == 0, ended.log
    result = result_of(open_storage(f"s3://{BUCKET}/out/plain-process"))
    assert result == references("dropout").result
