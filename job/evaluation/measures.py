"""What the measures of held-out turns are called where people read them: in card and report."""

from __future__ import annotations

from typing import Final

LABELS: Final = {
    "well_formed": "well-formed",
    "valid_arguments": "valid arguments",
    "right_tool": "right tool",
    "exact": "exactly right",
    "refusal": "right refusal",
    "text_match": "right text",
}
"""Name in the evaluation → label, in the order in which they are shown."""
