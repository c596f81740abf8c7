"""The promotion gate: is the adapter good enough, and better than the base model?"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from job.choices import GateOn
from job.errors import Problem, SettingsError

if TYPE_CHECKING:
    from job.config import Settings
    from job.evaluation.reading import Reading
    from job.ledger import RunRecord

_log = logging.getLogger(__name__)

PASSED: Final = "passed"
"""What the record says of a gate that was set and did not fail."""

_NOT_APPLICABLE: Final = "not applicable: "
_ROUNDING: Final = 1e-9
"""0.7 - 0.6 is a little less than 0.1 in binary: a gain of just the threshold has to pass."""


@dataclass(frozen=True)
class Names:
    """What people have set, as they know it."""

    min_exact: str = "FORGE_GATE_MIN_EXACT"
    min_gain: str = "FORGE_GATE_MIN_GAIN"
    seconds: str = "FORGE_EVAL_MAX_SECONDS"


@dataclass(frozen=True)
class Gate:
    """The thresholds; none is set where both are None."""

    min_exact: float | None = None
    min_gain: float | None = None
    on: GateOn = "rate"
    names: Names = Names()

    @property
    def is_set(self) -> bool:
        return self.min_exact is not None or self.min_gain is not None

    def verdict(self, evaluation: Mapping[str, Any] | None) -> str | None:
        """Why the gate failed, or None where it passed or isn't set.

        Without anything to judge by, a gate that is set does not apply, and the adapter doesn't
        pass it: promoting unseen would be the worse mistake.
        """
        if not self.is_set:
            return None
        exact = evaluation and evaluation["adapter"].get("exact")
        if not evaluation or not exact:
            return _NOT_APPLICABLE + self._nothing_judged(evaluation)
        failures = []
        if self.min_exact is not None:
            found, said = self._share(exact)
            if not _reaches(found, self.min_exact):
                failures.append(f"{said}, {self.names.min_exact} is {self.min_exact:.1%}")
        if self.min_gain is not None:
            found, said = self._gain(evaluation)
            if not _reaches(found, self.min_gain):
                failures.append(f"{said}, {self.names.min_gain} is {self.min_gain:+.1%}")
        return "; ".join(failures) + self.basis(evaluation) if failures else None

    def basis(self, evaluation: Mapping[str, Any] | None) -> str:
        """On how many turns the verdict rests, in brackets; empty where nobody says."""
        exact = evaluation and self.is_set and evaluation["adapter"].get("exact")
        if not evaluation or not exact or "of" not in exact:
            return ""
        cut = evaluation.get("stopped_by") == "seconds"
        rest = f"; time was over at {evaluation['rows']} of {evaluation['turns']} turns"
        return f" (judged on {exact['of']} held-out tool calls{rest if cut else ''})"

    def early_notice(
        self, held_out_calls: int, groups: Sequence[Hashable] | None = None
    ) -> str | None:
        """What can be said of the gate before any GPU time was spent: that it can't be passed.

        `groups` has the group of each call; without it each is one of its own.
        """
        if not self.is_set:
            return None
        if not held_out_calls:
            return (
                "a promotion gate is set, but no held-out row has a tool call to judge by: no "
                "adapter can pass it (raise FORGE_EVAL_FRACTION, add rows with calls, or unset "
                "FORGE_GATE_*)"
            )
        groups = range(held_out_calls) if groups is None else groups
        best = self._best(groups)
        if self.min_exact is None or _reaches(best, self.min_exact):
            return None
        return (
            f"FORGE_GATE_MIN_EXACT={self.min_exact:g} asks for more than the lower bound that "
            f"{held_out_calls} held-out tool calls{_in_groups(groups)} have when all are right, "
            f"{best:.1%}: no adapter can pass it (raise FORGE_EVAL_FRACTION, add rows with calls, "
            "or FORGE_GATE_ON=rate)"
        )

    def _nothing_judged(self, evaluation: Mapping[str, Any] | None) -> str:
        if evaluation and evaluation.get("stopped_by") == "seconds":
            return f"{self.names.seconds} was over before a held-out tool call was judged"
        if evaluation and (left_out := evaluation.get("not_judged")):
            return f"no held-out tool call can be judged: {left_out['why']}"
        return "no held-out tool calls to judge by"

    def _best(self, groups: Sequence[Hashable]) -> float:
        """The share by which an adapter is judged whose every call is right."""
        from job.evaluation.intervals import share_interval  # not on the way to `status`

        return 1.0 if self.on == "rate" else share_interval([True] * len(groups), groups)[0]

    def _share(self, exact: Mapping[str, Any]) -> tuple[float, str]:
        if self.on == "rate":
            return float(exact["rate"]), f"exactly right {exact['rate']:.1%}"
        low = float(exact["low"])
        return low, f"exactly right {exact['rate']:.1%}, at least {low:.1%} with 95% confidence"

    def _gain(self, evaluation: Mapping[str, Any]) -> tuple[float, str]:
        if self.on == "rate":
            gain = float(evaluation["adapter"]["exact"]["rate"])
            gain -= float(evaluation["base"]["exact"]["rate"])
            return gain, f"gain over the base {gain:+.1%}"
        gain, low = (float(evaluation["gain"]["exact"][name]) for name in ("rate", "low"))
        return low, f"gain over the base {gain:+.1%}, at least {low:+.1%} with 95% confidence"


def _reaches(found: float, threshold: float) -> bool:
    """Said so that what can't be compared, a NaN, does not."""
    return found >= threshold - _ROUNDING


def refuse_unjudgeable(settings: Settings, reading: Reading) -> None:
    """Raises `SettingsError` where a gate is set and no adapter could pass it, however good: what
    the model is trained to say would not be found right."""
    gate = gate_of(settings)
    if not gate.is_set or not (reading.unknown or reading.no_call_is_judged):
        return
    thresholds = {"MIN_EXACT": gate.min_exact, "MIN_GAIN": gate.min_gain}
    names = [f"FORGE_GATE_{name}" for name, value in thresholds.items() if value is not None]
    raise SettingsError(
        Problem(
            ", ".join(names),
            f"the calls of {settings.base_model} can't be judged: {reading.fault}",
            "write the calls into the text of the rows, as Hermes does (<tool_call>), take another "
            f"FORGE_MODEL_FAMILY or FORGE_MODEL, or unset {' and '.join(names)}",
        )
    )


def gate_of(settings: Settings) -> Gate:
    """As the settings have it."""
    return Gate(settings.gate_min_exact, settings.gate_min_gain, settings.gate_on)


def verdict_of_finished(settings: Settings, record: RunRecord) -> str | None:
    """What the gate, as it is set now, says of a finished run; None where it did not fail.

    Raises `SettingsError` where that is another outcome than the recorded one: to end as recorded
    would answer a question that was not asked, and the adapter lies where the old answer put it.
    """
    gate, recorded = gate_of(settings), str(record.results.get("gate"))
    failed = record.status == "gate_failed"
    try:
        found = gate.verdict(record.results["evaluation"])
    except (KeyError, TypeError):  # figures that another release has not recorded
        return recorded if failed else None
    if (found is not None) != failed:
        raise SettingsError(_other_outcome(gate, found, record, recorded))
    if gate.is_set and not failed and recorded != PASSED:
        _log.warning("the adapter passes the gate, but none was set while it ran: not promoted")
    return found


def _other_outcome(gate: Gate, found: str | None, record: RunRecord, recorded: str) -> Problem:
    said = found or (PASSED if gate.is_set else "not set")
    before = {name: record.settings.get(f"gate_{name}") for name in ("min_exact", "min_gain", "on")}
    was_set = before["min_exact"] is not None or before["min_gain"] is not None
    old = (f"FORGE_GATE_{n.upper()}={v}" for n, v in before.items() if v is not None)
    return Problem(
        "FORGE_GATE_*",
        f"the run is finished, and was judged by other values: then {recorded}; now {said}",
        f"go back to {', '.join(old) if was_set else 'no gate'}, or take another FORGE_RUN_ID",
    )


def _in_groups(groups: Sequence[Hashable]) -> str:
    different = len(set(groups))
    return f" of {different} conversations" if different < len(groups) else ""
