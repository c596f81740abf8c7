"""Models in the shapes of the two default ones, with random weights: no hub is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from tests.tiny import tiny_tokenizer

LLAMA_8B: Final[dict[str, Any]] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}
QWEN_14B: Final[dict[str, Any]] = {
    "model_type": "qwen2",
    "num_hidden_layers": 48,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
SHAPES: Final = {"8b": LLAMA_8B, "14b": QWEN_14B}
"""DeepSeek-R1-Distill-Llama-8B and Qwen2.5-14B-Instruct, as their config.json say."""

_TINY: Final = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
}
"""What a dry run on a CPU makes of either."""


def build(name: str, folder: Path, *, tiny: bool) -> Path:
    """The folder of the shape `name`, quantized to NF4 as the default models are; made once."""
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from job.engines.reference import load_quantized

    values = SHAPES[name] | (_TINY if tiny else {})
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        **values,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    plain = folder.with_name(folder.name + "-plain")
    torch.manual_seed(0)
    with torch.device("cpu" if tiny else "cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(str(plain), max_shard_size="4GB")
    del model
    quantized = load_quantized(plain)
    scratch = folder.with_name(folder.name + "-scratch")
    quantized.save_pretrained(str(scratch))
    tokenizer.save_pretrained(str(scratch))
    shutil.rmtree(plain)
    scratch.rename(folder)
    return folder
