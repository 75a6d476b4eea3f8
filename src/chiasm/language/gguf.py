"""GGUF files: dequantized once, then kept in the cache as safetensors."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from chiasm.errors import CheckpointError, reason
from chiasm.storage.cache import default_folder
from chiasm.storage.skeleton import weightless
from chiasm.storage.weights import load_into


def dequantized(path: Path) -> Path:
    """A folder in transformers' layout with the dequantized float32 weights of a .gguf file.

    Where parts are being built without weights it may have the config and tokenizer alone.
    """
    stat = path.stat()
    digest = hashlib.sha256(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = default_folder() / "gguf" / f"{path.stem}-{digest}"
    if weightless() and not folder.is_dir():
        folder = folder.with_name(f"{folder.name}-config")
    if not folder.is_dir():
        _dequantize(path, folder)
    return folder


def _dequantize(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"reading {path.name} needs the gguf package: pip install 'chiasm[gguf]'"
        ) from None
    try:
        content = _config(path) if weightless() else _read(path)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise CheckpointError(f"{path} cannot be read as a language model: {reason(error)}") from error
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        content.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        os.replace(draft, folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker
            raise CheckpointError(f"cannot keep the dequantized {path.name} in {folder}: {error}") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def _config(path: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


def _read(path: Path) -> Any:
    """transformers' model; its own `from_pretrained` would do the same, but only beside accelerate."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model: Any = AutoModelForCausalLM.from_config(_config(path), dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    own = model.state_dict()
    tied = {own[name].data_ptr(): tensors[name] for name in own if name in tensors}
    tensors |= {name: tied[own[name].data_ptr()] for name in own if own[name].data_ptr() in tied}
    load_into(model, tensors, path)
    return model
