"""Public layouts of image tokenizers: recognised by their files, and back bit for bit."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import chiasm
from chiasm import parts
from chiasm.data.documents import draw_prompt, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.heads import GREEDY, finish
from chiasm.inference.drawing import decode, to_images
from chiasm.inference.session import Session
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.parity.drawing import DrawStep
from chiasm.recipe.checkpoints import find_checkpoint
from chiasm.storage.weights import read_tensors

SMALL = {"ch": 32, "z_channels": 6, "resolution": 16, "in_channels": 3, "out_ch": 3, "num_res_blocks": 1}
CASES = {
    "vqvae2": {"in_channel": 3, "channel": 16, "n_res_block": 1, "n_res_channel": 8, "embed_dim": 8, "n_embed": 12},
    "vqgan-muse": {
        "resolution": 16,
        "hidden_channels": 32,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "z_channels": 8,
        "num_embeddings": 12,
        "quantized_embed_dim": 8,
    },
    "vqgan": {  # as Chameleon has it
        "ddconfig": {**SMALL, "double_z": False, "ch_mult": [1, 1], "attn_resolutions": [], "dropout": 0.0},
        "n_embed": 12,
        "embed_dim": 6,
    },
    "open-magvit2-vq": {
        "ddconfig": {**SMALL, "ch_mult": [1, 2]},
        "n_embed": 64,
        "embed_dim": 6,
        "use_ema": True,
        "class_path": "src.Open_MAGVIT2.models.lfqgan.VQModel",
    },
    "var-vq": {"vocab_size": 12, "z_channels": 8, "ch": 32, "share_quant_resi": 4, "quant_conv_ks": 3,
               "v_patch_nums": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]},
    "show-o-vq": {"_class_name": "MAGVITv2", "ch": 32, "ch_mult": [1, 1], "dec_mult": [1, 2], "enc_blocks": [2, 1],
                  "dec_blocks": [1, 1], "z": 5, "resolution": 16},
    "emu3-vq": {"model_type": "Emu3VisionVQ", "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1,
                "attn_resolutions": [1], "codebook_size": 12},
}  # fmt: skip


def public(name, config, folder):
    """A folder as the project publishes it, with random weights, and its tensors."""
    layout = find_family(name)
    tokenizer = parts.build("image_tokenizer", layout.model(config)["image_tokenizer"])
    ours = {f"image_tokenizer.{key}": tensor.clone() for key, tensor in tokenizer.state_dict().items()}
    if name == "open-magvit2-vq":  # its names are known from its keys alone
        theirs = {key.removeprefix("image_tokenizer."): tensor for key, tensor in ours.items()}
        smoothed = {"model_ema." + key.replace(".", ""): tensor + 1 for key, tensor in theirs.items()}
        return theirs | smoothed | {"model_ema.decay": torch.tensor(0.999), "loss.scale": torch.ones(2)}
    theirs = layout.names(config).to_theirs(ours, name)
    if name == "var-vq":
        theirs["quantize.ema_vocab_hit_SV"] = torch.rand(10, 12)
    if name == "vqgan-muse":
        theirs["encoder.down.1.attn.0.q.weight"] = torch.rand(32, 32, 1, 1)
    if name == "show-o-vq":
        theirs["quantize.power_vals"] = 2 ** torch.arange(4, -1, -1)
    return theirs


def write(name, config, tensors, folder):
    folder.mkdir()
    if name == "vqvae2":
        torch.save(tensors, folder / "vqvae_560.pt")
    elif name == "var-vq":
        torch.save(tensors, folder / "vae_ch32v12z8.pth")
    elif name == "vqgan":
        (folder / "vqgan.yaml").write_text(yaml.safe_dump({"model": {"params": config}}))
        torch.save({"state_dict": tensors}, folder / "vqgan.ckpt")
    elif name == "open-magvit2-vq":
        args = {key: value for key, value in config.items() if key != "class_path"}
        told = {"model": {"class_path": config["class_path"], "init_args": args}}
        (folder / "imagenet.yaml").write_text(yaml.safe_dump(told))
        torch.save({"state_dict": tensors}, folder / "imagenet_256_L.ckpt")
    else:
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("name", CASES)
def test_it_is_recognised_and_comes_back_bit_for_bit(name, tmp_path):
    torch.manual_seed(0)
    tensors = public(name, CASES[name], tmp_path)
    write(name, CASES[name], tensors, tmp_path / "public")
    assert recognise(Folder(tmp_path / "public")).name == name
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read_tensors(tmp_path / "theirs"), tensors)
    assert recognise(Folder(tmp_path / "theirs")).name == name


def test_the_smoothed_weights_are_the_ones_to_use(tmp_path):
    name = "open-magvit2-vq"
    tensors = public(name, CASES[name], tmp_path)
    write(name, CASES[name], tensors, tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    ours = load_file(find_checkpoint(tmp_path / "ours") / "model.safetensors")
    assert torch.equal(ours["image_tokenizer.decoder.conv_in.bias"], tensors["model_ema.decoderconv_inbias"])


@pytest.mark.parametrize("name", ["emu3-vq-hf", "janus-vq-hf"])
def test_what_transformers_wrote_comes_back_bit_for_bit(name, tmp_path):
    from transformers.models.emu3.modeling_emu3 import Emu3VQVAE, Emu3VQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

    small = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    if name == "emu3-vq-hf":
        config = Emu3VQVAEConfig(**small, codebook_size=12, attn_resolutions=[1], hidden_size=32)
        model = Emu3VQVAE(config)
    else:
        config = JanusVQVAEConfig(**small, num_embeddings=12, num_patches=4, latent_channels=16)
        model = JanusVQVAE(config)
    model.save_pretrained(tmp_path / "public")
    assert recognise(Folder(tmp_path / "public")).name == name
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read_tensors(tmp_path / "theirs"), read_tensors(tmp_path / "public"))


def test_janus_comes_back_bit_for_bit(tmp_path):
    from chiasm.interop.convert import _numbers, build_model
    from chiasm.interop.families.janus import _published
    from chiasm.recipe import load_recipe

    llm = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    told = {
        "siglip": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "mlp_ratio": 2}
    }
    told |= {"llm": llm | {"vocab_size": 50}, "ch_mult": [1, 1], "vq_ch": 32, "codebook": 12, "code_dim": 4}
    told |= {"z": 8, "head_dim": 24, "gen_res": 4}
    config = {**_published(told), "model_type": "multi_modality"}
    layout = find_family("janus")
    raw = {"name": "janus", "model": layout.model(config), "data": {}, "stages": []}
    model = build_model(load_recipe(raw).model, None)
    ours = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    tensors = layout.names(config).to_theirs(ours, "janus") | {
        "gen_vision_model.quantize.codebook_used": torch.ones(3)
    }
    (tmp_path / "public").mkdir()
    (tmp_path / "public/config.json").write_text(json.dumps(config))
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "public/model.safetensors"
    )
    _numbers(48).save_pretrained(tmp_path / "public")
    assert recognise(Folder(tmp_path / "public")).name == "janus"
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read_tensors(tmp_path / "theirs"), tensors)

    janus = chiasm.load(tmp_path / "ours")
    prompt = draw_prompt(janus.contract, Sample("s", (Message("user", ("a cat",)),)))
    words = janus.language.tokenizer
    assert prompt.ids[0] == words.begin
    assert prompt.ids[-1] == words.draw
    padded = [words.begin] + [words.end] * (len(prompt) - 2) + [words.draw]
    assert without_prompt(janus.contract, prompt).ids == padded
    drawn = janus.generate("a cat", guidance=5.0, temperature=0)
    documents = [prompt, without_prompt(janus.contract, prompt)]
    step = DrawStep(Session(janus, documents))
    codes = finish(janus.image_head.write(step.start, replace(GREEDY, guidance=5.0)), step)
    assert to_images(decode(janus, codes))[0].tobytes() == drawn[0].tobytes()


@pytest.mark.parametrize("name", ["vqvae2", "vqgan", "show-o-vq"])
def test_what_was_imported_is_loaded_like_any_model(name, tmp_path):
    write(name, CASES[name], public(name, CASES[name], tmp_path), tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    tokenizer = chiasm.load(tmp_path / "ours").image_tokenizer
    pictures = torch.rand(1, 3, tokenizer.size, tokenizer.size)
    assert tokenizer.decode(tokenizer.encode(pictures)).shape == pictures.shape
