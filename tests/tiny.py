"""A tiny real model: a two-layer Llama with random weights and a byte-level BPE tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CITIES = ("Oslo", "Lima", "Quito", "Paris", "Cairo", "Delhi", "Tokyo", "Accra", "Rome", "Kyiv")
_VERBS = ("Tell me", "What is", "Give me", "I need", "Find", "Look up", "Show me", "Check")


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Hermes conversations, no two alike."""
    chosen = random.Random(seed)
    return [_row(i, chosen) for i in range(count)]


def _row(number: int, chosen: random.Random) -> dict[str, Any]:
    city = chosen.choice(_CITIES)
    days = chosen.randint(1, 9)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "description": "Weather", "parameters": schema},
    }
    call = {"name": "get_weather", "arguments": {"city": city}}
    question = f"{chosen.choice(_VERBS)} the weather in {city} for {days} days, case {number}."
    return {
        "id": f"row-{number}",
        "messages": [
            {
                "role": "system",
                "content": f"Use the tools. <tools>\n{json.dumps(tool)}\n</tools>",
            },
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"<tool_call>\n{json.dumps(call)}\n</tool_call>"},
        ],
    }


def write_rows(path: Path, count: int, seed: int = 0) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows(count, seed))
    path.write_text(text, encoding="utf-8")
    return path


def build_model(folder: Path, tokenizer: Any = None, width: int = 64) -> Path:
    """Write the model folder: config, safetensors weights, and the tokenizer; without one given,
    one with a ChatML template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def llama_2_tokenizer() -> Any:
    """Bytes as tokens of their own and no regular expression, as Llama 2's: what converters know
    without a list of all tokenizers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    return _trained(raw, trainer, unk_token="<unk>")


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _trained(raw, trainer)


def _trained(raw: Any, trainer: Any, **tokens: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    texts = [message["content"] for row in rows(200) for message in row["messages"]]
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        **tokens,
    )
