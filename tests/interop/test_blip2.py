"""BLIP-2: parity, and a small folder of transformers that comes back bit for bit."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers
from chiasm.model.checkpoint import load_model

PLACE = os.environ.get("CHIASM_PARITY")
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "qformer"])
    assert len(results) >= 3
    assert not [str(each) for each in results if not each.agrees]


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = Blip2Config(
        vision_config={**SIZES, "image_size": 28, "patch_size": 7},
        qformer_config={**SIZES, "encoder_hidden_size": 16, "vocab_size": 30},
        text_config={"model_type": "opt", "vocab_size": 80, "hidden_size": 16, "ffn_dim": 32,
                     "num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 16,
                     "max_position_embeddings": 64},
        num_query_tokens=3,
        image_token_index=79,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("blip2")
    model.save_pretrained(folder)
    _numbers(80).save_pretrained(folder)
    return folder, model


def test_the_folder_comes_back_bit_for_bit(public, tmp_path):
    folder, _ = public
    assert recognise(Folder(folder)).name == "blip2-hf"
    import_checkpoint(folder, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    one, other = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "theirs"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_imported_model_sees_as_transformers_does(public, tmp_path):
    folder, theirs = public
    import_checkpoint(folder, tmp_path / "ours")
    ours, pixels = load_model(tmp_path / "ours").eval(), torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        made = ours.connector(ours.encoder(pixels))
        given = (pixels - ours.encoder.mean) / ours.encoder.deviation
        expected = theirs.get_image_features(given).pooler_output
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


def test_what_was_never_imported_exports_by_its_recipe(public, tmp_path):
    folder, theirs = public
    import_checkpoint(folder, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours/origin")
    (tmp_path / "ours/checksums.json").unlink()  # the origin's files are among them
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs", "blip2-hf")
    again = type(theirs).from_pretrained(tmp_path / "theirs")
    assert again.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in again.state_dict().items())


def test_a_language_model_with_an_encoder_is_refused():
    with pytest.raises(CheckpointError, match="not with T5"):
        find_family("blip2-hf").model({"use_decoder_only_language_model": False})
