"""Flamingo on the language models that OpenFlamingo stands on: each case made here, by transformers and by hand."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from chiasm.errors import ChiasmError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint
from chiasm.interop.convert import _numbers
from chiasm.interop.families.flamingo import replay
from chiasm.interop.parity.cases import Case
from chiasm.interop.shapes.flamingo_languages import LAYERS
from chiasm.model.checkpoint import load_model
from chiasm.storage.weights import read_tensors

WIDTH, IMAGE, LATENTS, HEADS, HEAD_WIDTH = 32, 59, 3, 2, 4
VISION = {"image_size": 14, "patch_size": 7, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2.0}
# What `lm.type` and `lm.cfg` say of each language model, and its public names.
BASES = {
    "redpajama-incite": ("gpt_neox", {
        "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48,
        "vocab_size": 60, "max_position_embeddings": 64, "rotary_pct": 1.0, "rotary_emb_base": 10000,
        "use_parallel_residual": False, "hidden_act": "gelu"}),
    "pythia": ("gpt_neox", {
        "hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48,
        "vocab_size": 60, "max_position_embeddings": 64, "rotary_pct": 0.5}),
    "mpt-7b": ("mpt", {"d_model": WIDTH, "n_layers": 4, "n_heads": 4, "vocab_size": 60, "max_seq_len": 64}),
    "six heads": ("mpt", {
        "d_model": 48, "n_layers": 2, "n_heads": 6, "vocab_size": 60, "max_seq_len": 64,
        "attn_config": {"clip_qkv": 0.3, "softmax_scale": 0.5}}),
}  # fmt: skip


# MPT-1B's config has keys of its own, and its queries and keys are normed.
MOSAIC_GPT = {
    "model_type": "mosaic_gpt", "d_model": WIDTH, "n_layers": 4, "n_heads": 4, "vocab_size": 60, "max_seq_len": 64,
    "mlp_ratio": 4, "no_bias": True, "alibi": True, "alibi_bias_max": 8, "attn_qk_ln": True, "attn_clip_qkv": None,
    "attn_impl": "torch", "attn_pdrop": 0.0, "attn_uses_sequence_id": False, "emb_init_std": None, "emb_pdrop": 0.0,
    "embedding_fraction": 1.0, "fan_mode": "fan_in", "init_device": "cpu", "init_std": 0.02, "logit_scale": None,
    "low_precision_layernorm": True, "param_init_fn": "kaiming_normal_", "prefix_lm": False, "resid_pdrop": 0.0,
    "softmax_scale": None, "tokenizer_name": "gpt-neox", "verbose": 0,
}  # fmt: skip
RENAMED = {"norm_1": "ln_1", "norm_2": "ln_2", "norm_f": "ln_f"}
RENAMED |= {"ffn": "mlp", "up_proj": "mlp_up", "down_proj": "mlp_down"}
CASES = [*BASES, "mpt-1b"]


def original(base, every=2):
    """OpenFlamingo's config and state dict round a language model of transformers, and that model."""
    torch.manual_seed(0)
    kind, cfg = BASES[base if base in BASES else "mpt-7b"]
    language = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **cfg)).eval()
    for parameter in language.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    words = {name: tensor.clone() for name, tensor in language.state_dict().items()}
    if kind == "gpt_neox":  # its public name, whatever the transformers at hand calls it
        head = language.get_output_embeddings().weight
        words = {n: t for n, t in words.items() if n not in ("lm_head.weight", "embed_out.weight")}
        words["embed_out.weight"] = head.detach().clone()
    if kind == "mpt":
        del words["lm_head.weight"]  # the table of embeddings
    if base == "mpt-1b":
        words |= {
            f"transformer.blocks.{n}.attn.{x}_ln.weight": torch.randn(WIDTH) for n in range(4) for x in "qk"
        }
        norm_queries_and_keys(language, words)
        words = {
            ".".join(RENAMED.get(part, part) for part in name.split(".")): t for name, t in words.items()
        }
        cfg = MOSAIC_GPT
    layers = LAYERS[kind][0]
    state = {}
    for name, tensor in words.items():
        inside = name.removeprefix(f"{layers}.")
        number, _, rest = inside.partition(".")
        moved = name if inside == name else f"{layers}.{number}.decoder_layer.{rest}"
        state[f"lang_encoder.{moved}"] = tensor
    gates = gated(language.config.hidden_size)
    for number in range(every - 1, language.config.num_hidden_layers, every):
        state |= {
            f"lang_encoder.{layers}.{number}.gated_cross_attn_layer.{k}": t.clone() for k, t in gates.items()
        }
    config = {
        "lm": {"type": cfg.get("model_type", kind), "cfg": cfg},
        "vision": VISION,
        "perceiver": {"depth": 1, "dim_head": 4, "heads": 2, "num_latents": LATENTS},
        "gated": {"dim_head": HEAD_WIDTH, "heads": HEADS},
        "cross_attn_every_n_layers": every,
        "media_token_id": IMAGE,
    }
    return config, state | perceiver() | tower(), language


def norm_queries_and_keys(language, words):
    """Give transformers' MPT what it lacks of MosaicGPT."""
    for n, block in enumerate(language.transformer.blocks):
        norms = [words[f"transformer.blocks.{n}.attn.{x}_ln.weight"] for x in "qk"]

        def normed(module, arguments, fused, norms=norms):
            query, key, value = fused.chunk(3, -1)
            sides = zip((query, key), norms, strict=True)
            return torch.cat([*(functional.layer_norm(x, (WIDTH,), w) for x, w in sides), value], -1)

        block.attn.Wqkv.register_forward_hook(normed)


def gated(width):
    inner = HEADS * HEAD_WIDTH
    shapes = {
        "attn_gate": (1,), "ff_gate": (1,), "attn.norm.weight": (width,), "attn.norm.bias": (width,),
        "attn.to_q.weight": (inner, width), "attn.to_kv.weight": (2 * inner, 16),
        "attn.to_out.weight": (width, inner), "ff.0.weight": (width,), "ff.0.bias": (width,),
        "ff.1.weight": (4 * width, width), "ff.3.weight": (width, 4 * width),
    }  # fmt: skip
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def perceiver():
    shapes = {
        "latents": (LATENTS, 16), "norm.weight": (16,), "norm.bias": (16,), "layers.0.0.to_q.weight": (8, 16),
        "layers.0.0.to_kv.weight": (16, 16), "layers.0.0.to_out.weight": (16, 8), "layers.0.1.0.weight": (16,),
        "layers.0.1.0.bias": (16,), "layers.0.1.1.weight": (64, 16), "layers.0.1.3.weight": (16, 64),
    }  # fmt: skip
    shapes |= {
        f"layers.0.0.norm_{side}.{p}": (16,) for side in ("media", "latents") for p in ("weight", "bias")
    }
    return {f"perceiver.{name}": torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def tower():
    block = "transformer.resblocks.{}."
    shapes = {"class_embedding": (16,), "positional_embedding": (5, 16), "conv1.weight": (16, 3, 7, 7)}
    shapes |= {"ln_pre.weight": (16,), "ln_pre.bias": (16,)}
    for name, shape in {
        "ln_1.weight": (16,), "ln_1.bias": (16,), "ln_2.weight": (16,), "ln_2.bias": (16,),
        "attn.in_proj_weight": (48, 16), "attn.in_proj_bias": (48,), "attn.out_proj.weight": (16, 16),
        "attn.out_proj.bias": (16,), "mlp.c_fc.weight": (32, 16), "mlp.c_fc.bias": (32,),
        "mlp.c_proj.weight": (16, 32), "mlp.c_proj.bias": (16,),
    }.items():  # fmt: skip
        shapes |= {block.format(n) + name: shape for n in range(2)}
    return {f"vision_encoder.{name}": torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def _has(language, name):
    return name in dict(language.named_modules())


def expected(config, state, language, ids, media):
    """Logits of rows without padding: the language model, with each gate before its layer written out."""
    layers = next(layers for layers, _ in LAYERS.values() if _has(language, layers))
    which = (ids == IMAGE).cumsum(1)  # the latest image of each position, 0 = none yet
    owner = torch.arange(1, media.shape[1] + 1).repeat_interleave(LATENTS)
    tokens, width = media.flatten(1, 2), language.config.hidden_size

    def before(prefix):
        def hook(module, arguments, named):
            x = arguments[0] if arguments else named["hidden_states"]
            own = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
            normed = functional.layer_norm(x, (width,), own["attn.norm.weight"], own["attn.norm.bias"])
            key, value = (tokens @ own["attn.to_kv.weight"].T).chunk(2, -1)
            q, k, v = (
                each.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)
                for each in (normed @ own["attn.to_q.weight"].T, key, value)
            )
            scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD_WIDTH)
            scores = scores.masked_fill(which[:, None, :, None] != owner, -1e9)
            read = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            read = read.masked_fill(which[..., None] == 0, 0) @ own["attn.to_out.weight"].T
            x = x + read * own["attn_gate"].tanh()
            inner = functional.layer_norm(x, (width,), own["ff.0.weight"], own["ff.0.bias"])
            inner = functional.gelu(inner @ own["ff.1.weight"].T) @ own["ff.3.weight"].T
            x = x + inner * own["ff_gate"].tanh()
            return ((x, *arguments[1:]), named) if arguments else (arguments, {**named, "hidden_states": x})

        return hook

    every = config["cross_attn_every_n_layers"]
    hooks = [
        layer.register_forward_pre_hook(
            before(f"lang_encoder.{layers}.{n}.gated_cross_attn_layer."), with_kwargs=True
        )
        for n, layer in enumerate(language.get_submodule(layers))
        if (n + 1) % every == 0
    ]
    logits = language(ids, use_cache=False).logits
    for each in hooks:
        each.remove()
    return logits


@pytest.mark.parametrize("base", CASES)
@torch.no_grad()
def test_a_flamingo_computes_what_its_parts_compute_by_themselves(base):
    config, state, language = original(base)
    ids = torch.randint(0, 58, (2, 11))
    ids[0, 2], ids[0, 7], ids[1, 0], ids[1, 5] = (IMAGE,) * 4
    inputs = {
        "vision_x": torch.randn(2, 2, 1, 3, 14, 14),
        "lang_x": ids,
        "attention_mask": torch.ones_like(ids),
    }
    case = Case(None, {"system": "flamingo", "case": base, "config": config})
    case.__dict__.update(tensors=state, inputs=inputs)
    outputs = replay(case)
    logits = expected(config, state, language, ids, outputs["media"])
    torch.testing.assert_close(outputs["logits"], logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("base", ["redpajama-incite", "mpt-7b", "mpt-1b"])
@torch.no_grad()
def test_a_published_one_borrows_its_language_model(base, tmp_path):
    """It holds what was trained: the table of embeddings, the resampler and the gates."""
    config, state, _ = original(base)
    table = f"lang_encoder.{LAYERS['gpt_neox' if base == 'redpajama-incite' else 'mpt'][1]}.weight"
    frozen = {
        name: t for name, t in state.items() if name.startswith("lang_encoder.") and "gated" not in name
    }
    trained = {name: t for name, t in state.items() if name not in frozen or name == table}
    words = {
        name.removeprefix("lang_encoder.").replace(".decoder_layer", ""): t for name, t in frozen.items()
    }
    if base == "redpajama-incite":  # rounded up, beyond the tokenizer's words
        words["embed_out.weight"] = functional.pad(words["embed_out.weight"], (0, 0, 0, 4), value=9.0)
        words["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    for name, tensors in {"lm": words, "public": trained}.items():
        (tmp_path / name).mkdir()
        save_file({key: t.clone() for key, t in tensors.items()}, tmp_path / name / "model.safetensors")
    config["lm"] |= {"checkpoint": str(tmp_path / "lm")}
    (tmp_path / "public" / "config.json").write_text(json.dumps(config))
    read = find_family("flamingo").read(Folder(tmp_path / "public"))
    assert set(read.borrowed) == frozen.keys() - {table}
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(read.tensors[name], state[name]) for name in state)


@pytest.mark.parametrize(("base", "key", "value", "place"), [
    ("mpt-7b", "expansion_ratio", 2, "expansion_ratio of an mpt"),
    ("mpt-7b", "attn_config", {"qk_gn": True}, "qk_gn"),
    ("mpt-7b", "attn_config", {"attn_pdrop": 0.1}, "attn_pdrop is 0.1"),
    ("mpt-1b", "no_bias", False, "no_bias of an mpt"),
    ("mpt-1b", "alibi", False, "attn_config.alibi of an mpt"),
    ("mpt-1b", "qk_gn", True, "qk_gn"),
    ("pythia", "rotary_pctt", 0.5, "rotary_pctt"),
])  # fmt: skip
def test_an_option_of_the_language_model_that_is_not_known_is_named(base, key, value, place, tmp_path):
    config, state, _ = original(base)
    config["lm"]["cfg"] = {**config["lm"]["cfg"], key: value}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    _numbers(60).save_pretrained(tmp_path)
    with pytest.raises(ChiasmError, match=place):
        import_checkpoint(tmp_path, tmp_path / "ours")


def test_constants_among_the_weights_are_known_to_be_without_effect(tmp_path):
    """As transformers 4.28 and before wrote them, and the doubled lists of layers of OpenFlamingo."""
    config, state, _ = original("pythia")
    for n in range(4):
        attention = f"lang_encoder.gpt_neox.layers.{n}.decoder_layer.attention."
        state[attention + "bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril()
        state[attention + "masked_bias"] = torch.tensor(-1e9)
        state[attention + "rotary_emb.inv_freq"] = torch.rand(2)
        state[f"lang_encoder.old_decoder_blocks.{n}.attention.dense.bias"] = torch.rand(WIDTH)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    _numbers(60).save_pretrained(tmp_path)
    import_checkpoint(tmp_path, tmp_path / "ours")


@pytest.mark.parametrize("base", CASES)
def test_it_comes_back_bit_for_bit(base, tmp_path):
    config, state, _ = original(base)
    (tmp_path / "public").mkdir()
    save_file(state, tmp_path / "public" / "model.safetensors")
    (tmp_path / "public" / "config.json").write_text(json.dumps(config))
    _numbers(60).save_pretrained(tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    load_model(tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    back = read_tensors(tmp_path / "theirs")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
