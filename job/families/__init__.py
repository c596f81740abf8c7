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
    ),
    "deepseek-r1": ModelFamily(
        base_model="unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit",
        response_marker="<｜Assistant｜>",
        end_of_turn="<｜end▁of▁sentence｜>",
        template="deepseek-r1.jinja",
    ),
    "llama-3": ModelFamily(
        base_model="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
        response_marker="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end_of_turn="<|eot_id|>",
    ),
    "smollm2": ModelFamily(
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        response_marker="<|im_start|>assistant\n",
        end_of_turn="<|im_end|>",
    ),
}
