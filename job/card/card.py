"""The card as a whole: metadata on top, then what a person wants to know, in that order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from job.card.facts import CardFacts, hub_name
from job.card.markdown import code, pairs, plain, table
from job.card.metadata import metadata
from job.card.results import results
from job.card.serving import merged_serving, serving

CURVE_NAME: Final = "training-curve.svg"
"""Beside the card, which shows it."""
_FILES: Final = 20
"""Data objects that are listed; `provenance.intoto.json` has all."""

_PROVENANCE: Final = (
    "`provenance.intoto.json` states from what, by what and when this was made (SLSA provenance "
    "v1, unsigned); `SHA256SUMS` has the digest of every file."
)

_MEASURED: Final = (
    "Held-out tool calls were judged with the adapter on its base, not with these weights, which "
    "round differently. Results, data and hyperparameters are in the adapter's card, "
    "[`adapter/README.md`](../adapter/README.md) of the same run."
)
_MERGED_PROVENANCE: Final = (
    "[`adapter/provenance.intoto.json`](../adapter/provenance.intoto.json) states from what the "
    "adapter was made; `SHA256SUMS` has the digest of every file here."
)


def model_card(facts: CardFacts) -> str:
    """Markdown. What comes from data, settings or people is escaped; secrets are the caller's."""
    base_model, _ = hub_name(facts.base_model, facts.revision)
    return "\n".join(
        [
            "---",
            metadata(facts).rstrip("\n"),
            "---",
            "",
            f"# LoRA adapter for {plain(base_model)}",
            "",
            f"Fine-tuned on tool-calling conversations by Forge Job, run {code(facts.run_uri)}:",
            f"{facts.step} optimizer steps in {facts.attempts} attempt(s).",
            "",
            *results(facts),
            *_curve(facts),
            *serving(facts),
            *_data(facts.data),
            "## Hyperparameters",
            "",
            *pairs(("name", "value"), facts.settings),
            *_licence(facts),
            "## Provenance",
            "",
            _PROVENANCE,
            "",
            *pairs(("", ""), facts.fingerprint),
        ]
    )


def merged_card(facts: CardFacts) -> str:
    """Markdown of the card beside merged weights. What was measured is the adapter's, and said in
    its card: here are what a hub needs, how to use the model, and where the rest is."""
    base_model, _ = hub_name(facts.base_model, facts.revision)
    return "\n".join(
        [
            "---",
            metadata(facts, merged=True).rstrip("\n"),
            "---",
            "",
            f"# {plain(base_model)}, fine-tuned",
            "",
            f"The LoRA adapter of Forge Job's run {code(facts.run_uri)}",
            f"at step {facts.step}, merged into its base model's 16-bit weights.",
            "",
            *merged_serving(facts),
            "## Results and data",
            "",
            _MEASURED,
            "",
            *_licence(facts),
            "## Provenance",
            "",
            _MERGED_PROVENANCE,
            "",
        ]
    )


def _curve(facts: CardFacts) -> list[str]:
    return [] if facts.curve is None else [f"![Loss by step]({CURVE_NAME})", ""]


def _data(report: Mapping[str, Any]) -> list[str]:
    files = list(report.get("files") or ())
    shown = [(f["uri"], f["rows"], f["size"], f["sha256"]) for f in files[:_FILES]]
    more = len(files) - len(shown)
    return [
        "## Data",
        "",
        *table(("", ""), _amounts(report)),
        *table(("object", "rows", "bytes", "SHA-256"), shown),
        *([f"… and {more} more in `provenance.intoto.json`.", ""] if more else []),
    ]


def _amounts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = {"train": "trained on", "evaluation": "held out"}
    for name, count in (report.get("counts") or {}).items():
        yield f"rows {names.get(name, name.replace('_', ' '))}", f"{count:,}"
    if report.get("tokens") is not None:
        yield "tokens of the training rows", f"{report['tokens']:,}"
    if (share := report.get("supervised_ratio")) is not None:
        yield "of these trained on", f"{share:.1%}"


def _licence(facts: CardFacts) -> list[str]:
    heading = ["## Licence of the base model", ""]
    if facts.licence is None:
        said = "Neither the base model's files nor this job know it: look it up before you share."
        return [*heading, said, ""]
    licence = facts.licence
    name = licence.name or licence.id
    link = f" ({plain(licence.link)})" if licence.link else ""
    note = [plain(licence.note), ""] if licence.note else []
    return [*heading, f"{plain(name)}{link}, as {plain(licence.source)} says.", "", *note]
