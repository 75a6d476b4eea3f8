"""SEED-X: parity, and a small folder of the published layout."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.errors import CheckpointError, ChiasmError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.convert import _numbers
from chiasm.interop.families.seed_x import DETOKENIZER, DIFFUSION, MARKERS, VISUAL, WORD
from chiasm.interop.families.seed_x_decoder_cases import _source
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import verify
from chiasm.model.checkpoint import load_model
from chiasm.tokenizers.spaces import Vectors

PLACE = os.environ.get("CHIASM_PARITY")
TEXT, HIDDEN, WIDTH, FEATURES, LATENT = 50, 64, 16, 128, 16  # words, then channels
TOKENS = [*MARKERS, *(WORD.format(i) for i in range(64))]
UNET = {"sample_size": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 12 + 20,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 20 + 6 * 8}  # fmt: skip
VAE = {"block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
       "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4}  # fmt: skip
SCHEDULER = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
             "beta_end": 0.012, "steps_offset": 1, "timestep_spacing": "leading", "clip_sample": False}  # fmt: skip


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "seed_x"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_case_may_hold_the_image_to_change_or_its_latents(channels):
    autoencoder = {"type": "vae", "size": 32, "config": VAE}
    unet = {**EXAMPLE_UNET, "cross_attention_dim": 24, "in_channels": 8, "out_channels": 4}
    decoder = parts.build(
        "image_decoder",
        {"type": "diffusion", "size": 32, "edits": True, "autoencoder": autoencoder,
         "conditioner": {"type": "vectors"}, "denoiser": {"type": "unet", "config": unet},
         "scheduler": {"type": "euler"}},
        DecoderContext(Vectors((2, 2), 24)),
    )  # fmt: skip
    image = torch.rand(1, channels, 32, 32) * 2 - 1
    case = Case(Path("case.json"), {"system": "seed_x"})
    case.inputs = {"image_embeds": torch.zeros(1), "image": image}
    source = _source(case, decoder)
    if channels == 4:
        assert source is image
    else:
        own = decoder.denoising.latents((image + 1) / 2)
        torch.testing.assert_close(source, own / decoder.autoencoder.scaling + decoder.autoencoder.shift)


def random(shapes, prefix=""):
    return {prefix + name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def both(name, shape, bias=None):
    """A layer's weight and bias."""
    return {f"{name}.weight": shape, f"{name}.bias": bias or shape[:1]}


def resampler(width, inputs, side):
    return {
        **{"pos_embed": (side**2, width), "query": (side**2, width), "kv_proj.weight": (width, inputs)},
        **{"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,)},
        **both("attn.out_proj", (width, width)),
        **both("ln_q", (width,)),
        **both("ln_kv", (width,)),
    }


def encoder():
    block = "transformer.resblocks.0."
    return {
        **{"conv1.weight": (WIDTH, 3, 56, 56), "positional_embedding": (256, WIDTH)},
        "proj": (FEATURES, FEATURES),
        **both("ln_pre", (WIDTH,)),
        **both("ln_post", (FEATURES,)),
        **both(block + "ln_1", (WIDTH,)),
        **both(block + "ln_2", (WIDTH,)),
        **both(block + "attn.in_proj", (3 * WIDTH, WIDTH)),
        **both(block + "attn.out_proj", (WIDTH, WIDTH)),
        **both(block + "mlp.c_fc", (24, WIDTH)),
        **both(block + "mlp.c_proj", (WIDTH, 24)),
        **{f"attn_pool.{name}": shape for name, shape in resampler(FEATURES, WIDTH, 16).items()},
    }


def adapter():
    layer, inner = "layers.0.", 16 * 64
    return {
        "latents": (1, 3, LATENT),
        **both("proj_in", (LATENT, FEATURES)),
        **both("norm_out", (LATENT,)),
        **both("unet_proj_1", (12, LATENT)),
        **both("unet_proj_2", (20, LATENT)),
        "unet_attnpool.positional_embedding": (4, LATENT),
        **{k: v for name in "kqv" for k, v in both(f"unet_attnpool.{name}_proj", (LATENT, LATENT)).items()},
        **both("unet_attnpool.c_proj", (20, LATENT)),
        **both(layer + "0.norm1", (LATENT,)),
        **both(layer + "0.norm2", (LATENT,)),
        **{layer + "0.to_q.weight": (inner, LATENT), layer + "0.to_kv.weight": (2 * inner, LATENT)},
        layer + "0.to_out.weight": (LATENT, inner),
        **both(layer + "1.0", (LATENT,)),
        **{layer + "1.1.weight": (64, LATENT), layer + "1.3.weight": (LATENT, 64)},
    }


def publish(root, stage="first_stage"):
    """seed_x_i beside all that it works with; returns its folder."""
    torch.manual_seed(0)
    words = _numbers(TEXT)
    words.add_special_tokens({"additional_special_tokens": TOKENS})
    words.save_pretrained(root / "cvlm_llama2_tokenizer_100img_and_224loc_addpatch")
    config = LlamaConfig(vocab_size=TEXT + len(TOKENS), hidden_size=HIDDEN, intermediate_size=32,
                         num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(root / "seed_x_i/llm")
    agent = {f"input_resampler.{k}": v for k, v in resampler(HIDDEN, FEATURES, 8).items()}
    agent |= {f"output_resampler.{k}": v for k, v in resampler(FEATURES, HIDDEN, 8).items()}
    unet = UNet2DConditionModel(**UNET, in_channels=8 if stage == "second_stage" else 4).state_dict()
    AutoencoderKL(**VAE).save_pretrained(root / DIFFUSION / "vae")
    for name, content in {"unet/config.json": UNET, "scheduler/scheduler_config.json": SCHEDULER}.items():
        (root / DIFFUSION / name).parent.mkdir()
        (root / DIFFUSION / name).write_text(json.dumps(content))
    for file, tensors in {
        root / "seed_x_i/agent/pytorch_model.bin": random({**agent, "patch_pos_embed": (4, HIDDEN)}),
        root / VISUAL: random(encoder()),
        root / DETOKENIZER / stage / "pytorch_model.bin": random(adapter(), "resampler.")
        | {f"unet.{name}": tensor for name, tensor in unet.items()},
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors, file)
    return root / "seed_x_i"


@pytest.fixture
def published(tmp_path):
    return publish(tmp_path / "pretrained")


def test_the_published_folder_is_recognised_and_comes_back_bit_for_bit(published, tmp_path):
    assert recognise(Folder(published)).name == "seed-x"
    import_checkpoint(published, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back/seed_x_i")
    tokenizer = "cvlm_llama2_tokenizer_100img_and_224loc_addpatch"
    (published.parent / tokenizer).rename(tmp_path / "back" / tokenizer)
    after = find_family("seed-x").read(Folder(tmp_path / "back/seed_x_i"))
    (tmp_path / "back" / tokenizer).rename(published.parent / tokenizer)
    before = find_family("seed-x").read(Folder(published))
    assert before.config == after.config
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


def test_an_imported_model_draws_and_reads_in_tiles(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    model.image_decoder.steps = 2
    (image,) = model.generate("<5>", seed=1)
    assert image.size == (32, 32)
    assert model.contract.read_tokens(model.views.canvases[0], "an image") == 2 * (1 + 64 + 1)
    assert model.chat([{"role": "user", "content": [image, "<7>"]}], tokens=2).text is not None


def test_the_rows_of_the_markers_and_of_an_images_words_are_the_language_models(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours"))
    table = model.language.inner.model.embed_tokens.weight
    assert torch.equal(model.views.markers, table[TEXT : TEXT + 4])
    assert model.image_head.words == list(range(TEXT + 4, TEXT + 68))
    assert model.language.tokenizer.before_picture == (TEXT + MARKERS.index("<img>"),)


@torch.no_grad()
def test_guidance_leads_away_from_a_grey_image(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    tokenizer = model.image_tokenizer
    grey = tokenizer.encode(tokenizer.encoder.mean.expand(1, 3, 448, 448))
    decoder = model.image_decoder
    expected = decoder.condition(grey)
    without = decoder.empty(decoder.condition(torch.rand_like(grey)))
    torch.testing.assert_close(without.tokens, expected.tokens)
    torch.testing.assert_close(without.added["text_embeds"], expected.added["text_embeds"])


def test_the_second_stage_changes_an_image(tmp_path):
    folder = publish(tmp_path / "pretrained", "second_stage")
    model = load_model(import_checkpoint(folder, tmp_path / "ours")).eval()
    assert model.image_decoder.edits
    assert model.image_decoder.guidance.source_scale == 1.5


@pytest.mark.parametrize(("missing", "named"), [
    (VISUAL, "qwen_vit_G"),
    (DIFFUSION, DIFFUSION),
    ("cvlm_llama2_tokenizer_100img_and_224loc_addpatch", "no tokenizer"),
])  # fmt: skip
def test_what_is_missing_is_named(published, tmp_path, missing, named):
    (published.parent / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=named):
        import_checkpoint(published, tmp_path / "ours")


def test_arguments_of_the_originals_classes_are_read_from_its_yaml_files(published, tmp_path):
    resamplers = "".join(
        f"{name}_resampler: {{_target_: src.models.tokenizer.qwen_visual.Resampler, grid_size: 8, num_heads: 4}}\n"
        for name in ("input", "output")
    )
    target = "_target_: src.models.mllm.seed_x.ContinuousLVLM.from_pretrained\n"
    (published / "agent_seed_x.yaml").write_text(f"{target}{resamplers}mse: False\nvit_down: True\n")
    model = load_model(import_checkpoint(published, tmp_path / "ours"))
    assert model.connector.resampler.heads == model.image_head.bridge.resampler.heads == 4
    assert model.image_head.alphabet.distance == "cosine"


def test_a_model_without_de_tokenizer_reads(published, tmp_path):
    (published.parent / DETOKENIZER).rename(tmp_path / "elsewhere")
    model = load_model(import_checkpoint(published, tmp_path / "ours"))
    assert isinstance(model.encoder, nn.Module)
    with pytest.raises(ChiasmError, match="no image decoder"):
        model.generate("<5>")
