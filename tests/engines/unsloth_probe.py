"""Run as a program where the real Unsloth can be imported: prints what it is, as JSON.

Unsloth refuses to start without an accelerator unless UNSLOTH_ALLOW_CPU=1, and then leaves TRL
as it is. So it is imported with that variable, and its own patches are then called as it calls
them where an accelerator is. Triton holds GPU kernels alone: in its place comes the stand-in that
Unsloth itself brings for machines without one.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import warnings
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def stand_in_for_triton() -> None:
    package = importlib.util.find_spec("unsloth_zoo")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "stubs" / "triton_stub.py"
    spec = importlib.util.spec_from_file_location("triton_stand_in", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.inject_into_sys_modules()


def patch_as_on_a_gpu() -> None:
    """What unsloth/__init__ and its models do at import where there is an accelerator."""
    from unsloth.context_parallel import patch_sft_trainer
    from unsloth.models.llama import FastLlamaModel
    from unsloth.models.rl import PatchFastRL
    from unsloth.trainer import _patch_trl_trainer

    os.environ["UNSLOTH_ALLOW_CPU"] = "0"
    PatchFastRL(FastLanguageModel=FastLlamaModel)
    _patch_trl_trainer()
    patch_sft_trainer()


def main() -> dict[str, Any]:
    stand_in_for_triton()
    # As in a run: the data stage renders templates before any engine is there.
    import transformers.utils.chat_template_utils

    assert transformers.utils.chat_template_utils
    from job.engines import UnslothEngine
    from job.errors import JobError

    found: dict[str, Any] = {}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/scratch/cache/torchinductor"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            UnslothEngine().trainer_classes()
        except JobError as error:
            found["unpatched"] = str(error)
    found["warnings"] = [str(warning.message) for warning in warned]

    patch_as_on_a_gpu()
    classes = UnslothEngine().trainer_classes()
    from unsloth import FastLanguageModel

    from job.training.trainer import job_trainer

    found["versions"] = {name: version(name) for name in ("unsloth", "unsloth_zoo", "trl")}
    found["inductor_cache"] = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    found["trainer"] = classes.trainer.__name__
    found["subclass"] = [base.__name__ for base in job_trainer(classes.trainer).__mro__]
    found["from_pretrained"] = parameters(FastLanguageModel.from_pretrained)
    found["get_peft_model"] = parameters(FastLanguageModel.get_peft_model)
    # Wrapped in a decorator that decides on it before the function is called.
    source = inspect.getsource(sys.modules[FastLanguageModel.from_pretrained.__module__])
    found["reads_local_files_only"] = 'kwargs.get("local_files_only"' in source
    found["untrained_tokens"] = refusals_of_untrained_tokens()
    found["config"] = parameters(classes.config.__init__)
    known = set(found["config"])
    given = {name: value for name, value in json.loads(sys.argv[1]).items() if name in known}
    made = classes.config(**given)
    found["made"] = {name: plain(getattr(made, name), value) for name, value in given.items()}
    return found


def refusals_of_untrained_tokens() -> list[str]:
    """What Unsloth's trainer says of tool calls whose tokens have no embeddings, before and after
    the engine has excused the model."""
    import torch
    from datasets import Dataset
    from unsloth_zoo.tokenizer_utils import fix_untrained_tokens

    from job.engines.unsloth import EXCUSED, excuse_untrained_tokens

    layers = torch.nn.Embedding(8, 4), torch.nn.Linear(4, 8, bias=False)
    for layer in layers:
        layer.requires_grad_(False).weight[5:7] = 0
    model = SimpleNamespace(
        get_input_embeddings=lambda: layers[0],
        get_output_embeddings=lambda: layers[1],
        config=SimpleNamespace(_name_or_path="/models/Qwen2.5-Coder"),
    )
    tokenizer = SimpleNamespace(
        chat_template="<tool_call></tool_call>",
        convert_ids_to_tokens=lambda ids: ["<tool_call>", "</tool_call>"],
        decode=str,
    )
    rows, found = Dataset.from_list([{"input_ids": [1, 5, 2, 6]}]), []
    for _ in range(2):
        try:
            fix_untrained_tokens(model, tokenizer, rows, os.environ[EXCUSED].split("\n"))
            found.append("")
        except ValueError as error:
            found.append(str(error))
        excuse_untrained_tokens(model.config._name_or_path)
    return found


def plain(value: Any, given: Any) -> Any:
    """As it was given, if it is the same: a dict becomes an object of transformers'."""
    if isinstance(given, dict) and not isinstance(value, dict):
        return {name: getattr(value, name) for name in given}
    return value.value if isinstance(value, Enum) else value


def parameters(function: Any) -> list[str]:
    """Names that can be given; not those that stand for any others."""
    any_others = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    signature = inspect.signature(function)
    return [p.name for p in signature.parameters.values() if p.kind not in any_others]


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(), default=str) + "\n")
