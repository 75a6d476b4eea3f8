"""LVM: two folders become one model that completes rows of pictures, and two folders again."""

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.interop import export_checkpoint, find_family, import_checkpoint
from chiasm.interop.convert import build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.sequence import Kind, pack
from chiasm.storage.folders import read_json, write_json, write_tensors
from chiasm.storage.weights import read_tensors

LLAMA = {"model_type": "llama", "vocab_size": 20, "hidden_size": 32, "intermediate_size": 48}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 12}
VQ = {"_class_name": "VQGANModel", "resolution": 32, "hidden_channels": 32, "channel_mult": [1, 1, 1, 1, 1]}
VQ |= {"num_res_blocks": 1, "attn_resolutions": [], "no_attn_mid_block": True, "z_channels": 8}
VQ |= {"num_embeddings": 16, "quantized_embed_dim": 8}


@pytest.fixture
def published(tmp_path):
    layout = find_family("lvm")
    raw = {"name": "x", "model": layout.model({**LLAMA, "vq": VQ}), "data": {}, "stages": []}
    torch.manual_seed(0)
    model = build_model(load_recipe(raw).model, None)
    ours = {key: torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
    theirs = layout.names({**LLAMA, "vq": VQ}).to_theirs(ours, "random")
    for place, config, prefix in (("LVM_ckpts", LLAMA, "model."), ("vqvae_ckpts", VQ, "tokenizer.")):
        (tmp_path / "lvm" / place).mkdir(parents=True)
        write_json(tmp_path / "lvm" / place / "config.json", config)
        tensors = {k.removeprefix(prefix): t for k, t in theirs.items() if k.startswith(prefix)}
        write_tensors(tmp_path / "lvm" / place / "model.safetensors", tensors)
    return tmp_path / "lvm"


@pytest.fixture
def model(published, tmp_path):
    import_checkpoint(published, tmp_path / "ours")
    return load_model(tmp_path / "ours")


def pictures(count):
    noise = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in noise]


def test_it_comes_back_bit_for_bit(published, model, tmp_path):
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    for place in ("LVM_ckpts", "vqvae_ckpts"):
        one, other = (read_tensors(folder / place) for folder in (published, tmp_path / "theirs"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        configs = [read_json(folder / place / "config.json") for folder in (published, tmp_path / "theirs")]
        assert configs[0] == configs[1]


def test_what_follows_depends_on_all_pictures(model):
    first, other, last = pictures(3)
    made = model.complete([first, last], temperature=0)
    assert [each.size for each in made] == [(32, 32)]
    assert made[0].tobytes() != model.complete([other, last], temperature=0)[0].tobytes()
    assert len(model.complete([first], count=2, temperature=0)) == 2
    with pytest.raises(DataError, match="needs a picture to follow"):
        model.complete([])


def test_no_picture_of_a_sentence_is_left_out(model):
    """A pair that lost its first picture would ask for something else."""
    for shown, count in ((3, 1), (2, 2), (1, 3)):
        with pytest.raises(DataError, match="of 12 positions has room for 3 images in all"):
            model.complete(pictures(shown), count=count)


def test_guidance_plays_no_part_in_what_follows(model):
    shown = pictures(2)
    (plain,) = model.complete(shown, temperature=0)
    model.sampling = model.sampling.model_copy(update={"guidance": 7.0})
    (guided,) = model.complete(shown, temperature=0)
    assert plain.tobytes() == guided.tobytes()


def test_a_visual_sentence_is_learnt_whole_but_its_first_code(model):
    sentence = tuple(PictureInMemory(each) for each in pictures(3))
    made = document(model.contract, Sample("x", (Message("document", sentence),)))
    assert len(made) == 12
    assert set(made.kinds) == {int(Kind.WRITTEN)}
    batch, slots = pack([[made]])
    loss = model.losses(PictureReader(model.contract).attach(batch, slots))["image"]
    assert float(loss.count) == 11


def test_it_has_no_words(model):
    with pytest.raises(
        ChiasmError, match=r"'a dog' is text: this model knows pictures alone \(its vocabulary is 0\)"
    ):
        model.generate("a dog")
