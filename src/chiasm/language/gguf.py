"""GGUF files: dequantized by transformers once, then kept in the cache as safetensors."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from chiasm.cache import default_folder
from chiasm.errors import CheckpointError


def dequantized(path: Path) -> Path:
    """A folder in transformers' layout with the dequantized float32 weights of a .gguf file."""
    stat = path.stat()
    digest = hashlib.sha256(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = default_folder() / "gguf" / f"{path.stem}-{digest}"
    if not folder.is_dir():
        _dequantize(path, folder)
    return folder


def _dequantize(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"reading {path.name} needs the gguf package: pip install 'chiasm[gguf]'"
        ) from None
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # The weights are plain floats now; what says otherwise would make transformers refuse to save them.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        os.replace(draft, folder)
    except OSError as error:
        if not folder.is_dir():
            raise CheckpointError(f"cannot keep the dequantized {path.name} in {folder}: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
