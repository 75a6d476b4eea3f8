"""Models that only draw: read from their files alone, drawn with, and written back bit for bit."""

import math

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from chiasm.errors import CheckpointError, ChiasmError, DataError
from chiasm.interop import export_checkpoint, find_family, import_checkpoint
from chiasm.interop.convert import build_model
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

WIDTH = 128  # heads are 64 wide in all published models
VQ = {"codebook_size": 24, "codebook_embed_dim": 8, "z_channels": 8, "ch": 32, "res": 64}
VQ |= {f"{side}_ch_mult": [1, 1, 1, 1, 1] for side in ("encoder", "decoder")}
GPT = {"dim": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 24, "hidden_dim": 64, "block_size": 16}
C2I = {**GPT, "model_type": "c2i", "num_classes": 10, "cls_token_num": 1, "vq": VQ}
T2I = {**GPT, "model_type": "t2i", "caption_dim": 16, "cls_token_num": 120, "vq": VQ}
LFQ = {"z_channels": 5, "ch": 32, "ch_mult": [1, 1, 1, 1, 1], "num_res_blocks": 1, "resolution": 64}
AR = {"dim": WIDTH, "n_head": 2, "spatial_n_layer": 2, "factorized_n_layer": 1, "factorized_bits": [2, 3]}
AR |= {"class_num": 10, "hidden_dim": 64, "block_size": 16}
AR |= {"vq": {"embed_dim": 5, "n_embed": 32, "ddconfig": LFQ}}


def original(family, config):
    """Random tensors of a layout, by its own names."""
    layout = find_family(family)
    keys = []
    if family == "open-magvit2":  # its rules for the tokenizer are made from the names there are
        part = build_model(load_recipe(alone(layout.model(config))).model, None)
        keys = ["first_stage_model." + key.removeprefix("image_tokenizer.") for key in part.state_dict()]
    raw = {"name": "x", "model": layout.model(config), "data": {}, "stages": []}
    torch.manual_seed(0)
    ours = {
        key: torch.randn_like(t.float())
        for key, t in build_model(load_recipe(raw).model, None).state_dict().items()
    }
    return layout.names(config, keys).to_theirs(ours, "random")


def alone(model):
    return {"name": "x", "model": {"image_tokenizer": model["image_tokenizer"]}, "data": {}, "stages": []}


def parts_of(tensors, prefix):
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


@pytest.fixture
def c2i(tmp_path):
    tensors, folder = original("llamagen", C2I), tmp_path / "c2i"
    folder.mkdir()
    torch.save({"model": parts_of(tensors, "gpt.")}, folder / "c2i_B_064.pt")
    torch.save({"model": parts_of(tensors, "vq.")}, folder / "vq_ds16_c2i.pt")
    return folder


def equal(one, other):
    one, other = (torch.load(path, weights_only=True) for path in (one, other))
    (one,), (other,) = one.values(), other.values()
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def test_llamagen_draws_a_class_and_comes_back(c2i, tmp_path):
    import_checkpoint(c2i, tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    assert (model.image_tokenizer.grid, model.language.tokenizer.begin) == ((4, 4), 10)
    one, two = (model.generate("7", guidance=2.0, temperature=0)[0] for _ in range(2))
    assert one.size == (64, 64)
    assert one.tobytes() == two.tobytes()
    with pytest.raises(DataError, match="'cat' is no class: this model draws the classes 0 to 9"):
        model.generate("cat")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    for name in ("c2i_B_064.pt", "vq_ds16_c2i.pt"):
        assert equal(c2i / name, tmp_path / "theirs" / name)


def test_a_transformer_without_its_tensors_is_named(c2i, tmp_path):
    torch.save({"model": {"norm.weight": torch.ones(3)}}, c2i / "c2i_B_064.pt")
    with pytest.raises(CheckpointError, match=r"c2i_B_064\.pt is not LlamaGen's transformer"):
        import_checkpoint(c2i, tmp_path / "ours")


def test_llamagen_reads_captions_with_the_t5_beside_it(tmp_path):
    torch.manual_seed(0)
    told = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    tokenizer = TextTokenizer.train(["a dog and a cat"] * 9, 300)
    text = T5EncoderModel(T5Config(vocab_size=len(tokenizer), **told))
    folder = tmp_path / "t2i"
    text.save_pretrained(folder / "flan-t5-xl")
    tensors = original("llamagen", T2I)
    torch.save({"module": parts_of(tensors, "gpt.")}, folder / "t2i_XL_stage1_064.pt")
    torch.save({"model": parts_of(tensors, "vq.")}, folder / "vq_ds16_t2i.pt")
    tokenizer.inner.chat_template = None
    tokenizer.save(folder / "flan-t5-xl")
    import_checkpoint(folder, tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    dog, cat = model.generate(["a dog", "a cat"], guidance=3.0, temperature=0)
    assert dog.tobytes() != cat.tobytes()
    with pytest.raises(ChiasmError, match="only draws"):
        model.chat("a dog")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    written = torch.load(tmp_path / "theirs" / "t2i_XL_stage1_064.pt", weights_only=True)["model"]
    assert all(torch.equal(written[key], tensor) for key, tensor in parts_of(tensors, "gpt.").items())


def test_without_a_t5_captions_are_refused(c2i, tmp_path):
    torch.save({"model": parts_of(original("llamagen", T2I), "gpt.")}, c2i / "t2i_XL_stage1_064.pt")
    (c2i / "c2i_B_064.pt").unlink()
    with pytest.raises(CheckpointError, match="captions need one"):
        import_checkpoint(c2i, tmp_path / "ours")


def test_open_magvit2_draws_a_class_and_comes_back(tmp_path):
    folder = tmp_path / "ar"
    folder.mkdir()
    torch.save({"state_dict": original("open-magvit2", AR)}, folder / "AR_064_B.ckpt")
    import_checkpoint(folder, tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    assert model.image_head.alphabet.bits == [2, 3]
    assert math.prod(model.image_tokenizer.grid) == 16
    assert model.generate("7", guidance=1.9, temperature=0)[0].size == (64, 64)
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(folder / "AR_064_B.ckpt", tmp_path / "theirs" / "AR_064_B.ckpt")
