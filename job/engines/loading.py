"""What both engines share while a model is loaded: errors in the job's words, and quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.engines.accelerator import is_out_of_memory
from job.engines.source import read_config
from job.errors import OutOfDisk, OutOfGpuMemory, Problem, SettingsError
from job.storage import disk_is_full

_HINT = "FORGE_MODEL must lead to a folder of a causal language model with its tokenizer"


@contextmanager
def refusing(model_dir: Path) -> Iterator[None]:
    """What loading `model_dir` raises, as `SettingsError`, `OutOfGpuMemory` or `OutOfDisk`."""
    from safetensors import SafetensorError

    try:
        yield
    # transformers looks up attributes and keys of weights that a damaged folder doesn't have.
    except (OSError, ValueError, SafetensorError, AttributeError, KeyError) as error:
        if disk_is_full(error):
            raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left")) from error
        raise not_loadable(model_dir, _first_paragraph(error)) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            hint = "take a smaller FORGE_MODEL or a GPU with more memory"
            found = f"the model does not fit: {_first_paragraph(error)}"
            raise OutOfGpuMemory(Problem("GPU", found, hint)) from error
        if not str(error).startswith("Unsloth:"):  # which says so of a folder that it can't read
            raise
        raise not_loadable(model_dir, _first_paragraph(error)) from error


def not_loadable(model_dir: Path, found: str) -> SettingsError:
    return SettingsError(Problem("FORGE_MODEL", f"{model_dir} can't be loaded: {found}", _HINT))


def provenance(model: Any, model_dir: Path) -> dict[str, str]:
    """What was really loaded, for the record and the adapter's card."""
    import torch

    base = model.get_base_model()
    config = read_config(model_dir)
    on_gpu = torch.cuda.is_available()
    weights = next(p for p in base.parameters() if p.is_floating_point())
    return {
        "loaded_from": str(model_dir),
        "architecture": type(base).__name__,
        "quantized": "by its own files" if "quantization_config" in config else "on loading",
        "dtype": str(weights.dtype).removeprefix("torch."),
        "attention": str(getattr(base.config, "_attn_implementation", "")),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }


def quiet_libraries() -> None:
    """No bars of theirs between our log lines, and no advice about an optional CPU kernel."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # Said at import on CPUs with AVX512-BF16. That kernel is for re-packed weights, which we
    # never have (see `disable_avx512_repacking`).
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_not_about_the_kernel)
    # Several times at the end of each epoch of several ranks: that all is well.
    logging.getLogger("accelerate.accelerator").setLevel(logging.WARNING)


def _not_about_the_kernel(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")


def _first_paragraph(error: Exception) -> str:
    # transformers goes on with a list of all the architectures that it knows.
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError) else text
