"""The model families: base model and what its chat template must show. One entry is a family.

docs/models.md says how one is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """What a family needs beyond the model's own files."""

    base_model: str
    """Hub id of the default base model."""
    response_marker: str
    """The text with which the template opens an assistant turn."""
    end_of_turn: str
    """The token that ends an assistant turn; it is trained, so that the model learns to stop."""
    template: str | None = None
    """File beside this one, used where the model's own template hides tools or `<think>`."""

    licence: str | None = None
    """Of `base_model`, as hubs write it; used where the model's own card isn't there."""
    licence_note: str = ""
    """What the licence asks of those who share an adapter."""
    tool_call_parser: str = "hermes"
    """vLLM's `--tool-call-parser` for `tool_calls` as the template writes them."""
    reasoning_parser: str | None = None
    """vLLM's `--reasoning-parser`, where the model thinks first."""

    def chat_template(self) -> str | None:
        """The text of `template`."""
        if self.template is None:
            return None
        return (files(__name__) / self.template).read_text(encoding="utf-8")


FAMILIES: Final[dict[str, ModelFamily]] = {
    "qwen-2.5": ModelFamily(
        base_model="unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        response_marker="<|im_start|>assistant\n",
        end_of_turn="<|im_end|>",
        licence="apache-2.0",
    ),
    "deepseek-r1": ModelFamily(
        base_model="unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit",
        response_marker="<｜Assistant｜>",
        end_of_turn="<｜end▁of▁sentence｜>",
        template="deepseek-r1.jinja",
        licence="mit",
        licence_note="It was distilled from Llama-3.1-8B, whose Llama 3.1 Community License stays "
        "in force for what derives from it.",
        reasoning_parser="deepseek_r1",
    ),
    "llama-3": ModelFamily(
        base_model="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
        response_marker="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end_of_turn="<|eot_id|>",
        licence="llama3.1",
        licence_note="The Llama 3.1 Community License asks that what is shared says "
        '"Built with Llama", and that the model\'s name begins with "Llama".',
        tool_call_parser="llama3_json",
    ),
    "smollm2": ModelFamily(
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        response_marker="<|im_start|>assistant\n",
        end_of_turn="<|im_end|>",
        licence="apache-2.0",
    ),
}
