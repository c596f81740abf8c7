"""The Unsloth engine: `FastLanguageModel` on the node's GPU.

Read against unsloth 2026.10.7. Unsloth patches trl, transformers and peft when it is imported,
so it has to come first, and it needs an accelerator: it is imported here alone, when it is used.
Its defaults differ from TRL's, so every value that matters is given.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from job.engines.accelerator import device, has_bf16
from job.engines.base import LoadedModel, TrainerClasses
from job.engines.loading import provenance, quiet_libraries, refusing
from job.engines.source import position_limit
from job.engines.tokenizer import faithful
from job.errors import JobError, Problem, SettingsError
from job.profiles import LORA_TARGET_MODULES, Hyperparameters

_log = logging.getLogger(__name__)

_PATCHED_TRAINER = "UnslothSFTTrainer"

EXCUSED: Final = "UNSLOTH_IGNORED_TOKENIZER_NAMES"
"""Set by Unsloth when it is imported, and read when a trainer is made."""

CACHES: Final = {
    "UNSLOTH_COMPILE_LOCATION": "unsloth-compile",
    "UNSLOTH_MEGA_CACHE_DIR": "unsloth-mega-cache",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "HF_DATASETS_CACHE": "datasets",
    "HF_MODULES_CACHE": "models-code",
    "MPLCONFIGDIR": "matplotlib",
}
"""Variable → folder below the work volume's `cache/`."""


def from_pretrained_arguments(
    model_dir: Path, hyperparameters: Hyperparameters, trust_remote_code: bool = False
) -> dict[str, Any]:
    """What `FastLanguageModel.from_pretrained` is called with."""
    return {
        # Absolute: a relative path would be taken for a hub id.
        "model_name": str(model_dir.resolve()),
        "max_seq_length": _clamped(hyperparameters.max_seq_length, position_limit(model_dir)),
        "dtype": None,  # bf16 where the card has it, else fp16
        "load_in_4bit": True,
        "load_in_8bit": False,
        "load_in_16bit": False,
        "full_finetuning": False,
        "trust_remote_code": trust_remote_code,
        "use_gradient_checkpointing": "unsloth",
        # Else what does not fit is planned onto other cards, or onto the host, which is refused
        # as if the folder were no model.
        "device_map": {"": device()},
        # Without it names are remapped to other repositories and the revision is dropped.
        "use_exact_model_name": True,
        "fast_inference": False,
        "random_state": hyperparameters.seed,
    }


OFFLINE: Final = {"local_files_only": True}
"""One of `from_pretrained`'s keywords without a name in its signature: everything is on the disk by
now, and the hub isn't asked for anything while it loads."""


def get_peft_model_arguments(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """What `FastLanguageModel.get_peft_model` is called with."""
    return {
        # By default in the working directory, which the image's read-only root does not let it.
        "temporary_location": str(Path(tempfile.gettempdir()) / "unsloth-buffers"),
        "r": hyperparameters.lora_r,
        "target_modules": list(LORA_TARGET_MODULES),
        "lora_alpha": hyperparameters.lora_alpha,
        "lora_dropout": hyperparameters.lora_dropout,
        "bias": "none",
        "use_gradient_checkpointing": "unsloth",
        "random_state": hyperparameters.seed,
        "use_rslora": False,
    }


class UnslothEngine:
    """Keeps `job.engines.base.Engine`."""

    name = "unsloth"

    def __init__(self, trust_remote_code: bool = False) -> None:
        self._trust_remote_code = trust_remote_code

    def import_first(self) -> None:
        """Import Unsloth, before anything that it patches. Raises `SettingsError`."""
        _import_first()

    def load(self, model_dir: Path, hyperparameters: Hyperparameters) -> LoadedModel:
        fast_language_model = _import_first()
        quiet_libraries()

        given = from_pretrained_arguments(model_dir, hyperparameters, self._trust_remote_code)
        with refusing(model_dir):
            model, tokenizer = fast_language_model.from_pretrained(**given, **OFFLINE)
            excuse_untrained_tokens(given["model_name"])
            model = fast_language_model.get_peft_model(
                model, **get_peft_model_arguments(hyperparameters)
            )
            tokenizer = faithful(tokenizer, model_dir)
        _write_out(model.config)
        return LoadedModel(model, tokenizer, provenance(model, model_dir))

    def trainer_classes(self) -> TrainerClasses:
        _import_first()
        import trl

        # A compile folder that can't be written leaves stock TRL in place, without a word.
        if trl.SFTTrainer.__name__ != _PATCHED_TRAINER:
            raise JobError(
                Problem(
                    "UNSLOTH_COMPILE_LOCATION",
                    f"Unsloth did not patch the trainer (it is {trl.SFTTrainer.__name__})",
                    "its compile folder must be writable: put FORGE_WORK_DIR on a writable volume",
                )
            )
        return TrainerClasses(trl.SFTTrainer, trl.SFTConfig)

    def training_arguments(self) -> dict[str, Any]:
        bf16 = has_bf16()
        return {
            "use_cpu": False,
            "bf16": bf16,
            "fp16": not bf16,
            "gradient_checkpointing": True,
            # Several conversations in one row without padding, kept apart by their positions.
            "padding_free": True,
        }

    def adopt(self, trainer: Any) -> None:
        """Unsloth keeps the LoRA weights in fp32 in training, but asks for evaluations in bf16: one
        that is made outside of the loop, as after a preemption in the last one, would round the
        trained weights for good (transformers casts the model in place).

        It gives padding-free batches up in silence for models and environments that it can't keep
        conversations apart in (UNSLOTH_RETURN_LOGITS=1 is one), at a third of the speed or more.
        """
        trainer.args.bf16_full_eval = trainer.args.fp16_full_eval = False
        if not getattr(trainer.data_collator, "padding_free", False):
            _log.warning("Unsloth has switched padding-free batches off: padding is trained over")

    @contextmanager
    def generating(self, model: Any) -> Iterator[None]:
        fast_language_model = _import_first()
        fast_language_model.for_inference(model)
        try:
            yield
        finally:
            fast_language_model.for_training(model)


def prepare_environment(work_dir: Path) -> None:
    """Point the caches at the work volume, where the user hasn't; before torch is imported.

    The image's root file system is read-only, and Unsloth's telemetry may block a start.
    """
    for variable, folder in cache_folders(work_dir).items():
        os.environ[variable] = str(folder)
    for variable, value in _SWITCHES.items():
        os.environ.setdefault(variable, value)


_SWITCHES: Final = {
    "UNSLOTH_DISABLE_STATISTICS": "1",
    # It maps our tokenized rows once more, in processes forked from one with threads and a card.
    "UNSLOTH_DATASET_NUM_PROC": "0",
}


def cache_folders(work_dir: Path) -> dict[str, Path]:
    """Where each of the caches is in a run on that work volume, by the variable that says so."""
    return {
        variable: Path(os.environ.get(variable, work_dir / "cache" / folder))
        for variable, folder in CACHES.items()
    }


def excuse_untrained_tokens(model_name: str) -> None:
    """Unsloth's trainer refuses rows with tokens whose embeddings are zero, but of some models that
    it knows by their hub's names: Qwen2.5-Coder's `<tool_call>` is one. Ours has a folder's."""
    os.environ[EXCUSED] = "\n".join([os.environ.get(EXCUSED, ""), model_name])


def _write_out(config: Any) -> None:
    """Unsloth notes the quantization with a `torch.dtype` in it, which no JSON can hold: as that
    TensorBoard is given the model's configuration."""
    import torch

    noted = getattr(config, "quantization_config", None)
    if isinstance(noted, dict):
        dtypes = {name: value for name, value in noted.items() if isinstance(value, torch.dtype)}
        noted |= {name: str(value).removeprefix("torch.") for name, value in dtypes.items()}


def _clamped(max_seq_length: int, limit: int | None) -> int:
    """Asked for more, Unsloth stretches the model's positions (RoPE scaling) without a word."""
    if limit is None or max_seq_length <= limit:
        return max_seq_length
    _log.warning("the model has %d positions: FORGE_MAX_SEQ_LENGTH counts as that", limit)
    return limit


@contextmanager
def _variables_kept() -> Iterator[None]:
    """Unsloth takes TORCHINDUCTOR_CACHE_DIR out of the environment when it is imported: compiled
    kernels would not be on the work volume, where the next attempt looks for them."""
    kept = {name: os.environ[name] for name in CACHES if name in os.environ}
    yield
    os.environ.update(kept)


def _import_first() -> Any:
    if importlib.util.find_spec("unsloth") is None:
        hint = "use the GPU image or install the gpu extra, or set FORGE_ENGINE=reference"
        raise SettingsError(Problem("FORGE_ENGINE", "unsloth is not installed", hint))
    loaded = [name for name in ("trl", "peft") if name in sys.modules]
    if loaded and "unsloth" not in sys.modules:
        raise JobError(f"unsloth must be imported before {', '.join(loaded)}: a bug of forge-job")
    try:
        with _variables_kept(), warnings.catch_warnings():
            # The data stage has loaded the chat template's renderer from transformers: no part
            # that Unsloth patches. (Were trl or peft named too, we wouldn't be here.)
            warnings.filterwarnings("ignore", r"WARNING: Unsloth should be imported before \[trans")
            from unsloth import FastLanguageModel
    except ImportError as error:
        hint = "install the gpu extra, or set FORGE_ENGINE=reference"
        raise SettingsError(
            Problem("FORGE_ENGINE", f"unsloth can't be imported: {error}", hint)
        ) from error
    except NotImplementedError as error:  # what it raises where there is no accelerator
        hint = "run on a GPU node, or set FORGE_ENGINE=reference"
        raise SettingsError(Problem("FORGE_ENGINE", f"unsloth: {error}", hint)) from error
    return FastLanguageModel
