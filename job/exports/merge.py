"""The adapter merged into its base's 16-bit weights; a process of its own, run by `merged`.

So it has transformers and PEFT as they are, not as Unsloth has patched them; its memory is given
back; and it can be ended at any moment. The base is loaded in 16 bits, never de-quantized: what
rounding to 4 bits has lost would stay lost in a model that is served in 16.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

_SHARD: Final = "5GB"
"""As hubs have them."""


def merge(base: Path, adapter: Path, into: Path, trust_remote_code: bool) -> None:
    """Write base + adapter to `into`, as an ordinary model folder without a tokenizer.

    LoRA's own formula, W + alpha / r * B A (arXiv:2106.09685), by PEFT, which refuses results
    that are not finite.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    where = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(str(base), **where)
    half = torch.float16 if config.dtype == torch.float16 else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=half, **where)
    adapted = PeftModel.from_pretrained(model, str(adapter))
    # The bar, as those of loading and saving, is the sign of life that `merged` looks for.
    merged = adapted.merge_and_unload(progressbar=True, safe_merge=True)
    merged.save_pretrained(str(into), max_shard_size=_SHARD)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "trust")
