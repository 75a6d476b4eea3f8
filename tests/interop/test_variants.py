"""Cases of other sizes and options than the recorded ones, made by transformers itself and replayed as they are."""

import json

import pytest
import torch
import transformers
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import nn

from chiasm.interop import verify

VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 3,
          "image_size": 30, "patch_size": 6}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 77, "max_position_embeddings": 512}  # fmt: skip
IMAGE = 70


def random(model):
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.15)
    return model.eval()


def agrees(folder, system, model, inputs, outputs, config=None):
    """Writes the case, and replays it."""
    model.save_pretrained(folder / "public")
    tensors = {f"param/{key}": t for key, t in load_file(folder / "public/model.safetensors").items()}
    tensors |= {f"input/{key}": tensor for key, tensor in inputs.items()}
    tensors |= {f"output/{key}": tensor for key, tensor in outputs.items()}
    save_file(
        {key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / "case.safetensors"
    )
    told = config or json.loads((folder / "public/config.json").read_text())
    rule = {"atol": 3e-5, "rtol": 1e-4}
    masked = {"logits": "input/attention_mask"} if "attention_mask" in inputs else {}
    case = {"system": system, "case": "variant", "config": told, "inputs": {},
            "reference": {"class": type(model).__name__, "commit": f"v{transformers.__version__}"},
            "outputs": dict.fromkeys(outputs, rule), "zero_where_mask_is_0": masked}  # fmt: skip
    (folder / "case.json").write_text(json.dumps(case))
    (result,) = verify([folder / "case.json"])
    assert result.agrees, str(result)


def rows(stretches, side="left"):
    """Ids and mask: each row is a list of numbers of words (> 0) and of image places (< 0)."""
    made = [
        torch.cat([torch.randint(3, IMAGE, (n,)) if n > 0 else torch.full((-n,), IMAGE) for n in row])
        for row in stretches
    ]
    longest = max(map(len, made))
    ids, mask = torch.zeros(len(made), longest, dtype=torch.long), torch.zeros(len(made), longest)
    for r, row in enumerate(made):
        place = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[r, place], mask[r, place] = row, 1
    return ids, mask.long()


LLAVAS = {
    "first layer": {"vision_feature_layer": 1},
    "last layer": {"vision_feature_layer": -1, "projector_hidden_act": "relu"},
    "several layers": {"vision_feature_layer": [-2, 1, -1]},
    "class token": {"vision_feature_select_strategy": "full", "multimodal_projector_bias": False},
    "several layers and class tokens": {"vision_feature_layer": [-1, -3], "vision_feature_select_strategy": "full",
                                        "projector_hidden_act": "gelu_pytorch_tanh"},
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("options", LLAVAS.values(), ids=LLAVAS)
def test_llava(tmp_path, options, side):
    text = {**TEXT, "model_type": "llama", "tie_word_embeddings": side == "left"}
    config = transformers.LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"},
        text_config=text,
        image_token_id=IMAGE,
        **options,
    )
    model = random(transformers.LlavaForConditionalGeneration(config))
    tokens = 26 if options.get("vision_feature_select_strategy") == "full" else 25
    ids, mask = rows([[3, -tokens, 2, -tokens, 4], [5, -tokens, 1], [9]], side)
    pixels = torch.randn(3, 3, 30, 30)
    outputs = {"image_features": torch.stack(list(model.model.get_image_features(pixels).pooler_output))}
    outputs["logits"] = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits
    agrees(
        tmp_path, "llava", model, {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}, outputs
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma", "phi3"])
def test_llava_with_siglip_and_other_language_models(tmp_path, kind):
    extra = {"head_dim": 8} if kind == "gemma" else {"pad_token_id": 0} if kind == "phi3" else {}
    config = transformers.LlavaConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        text_config={**TEXT, **extra, "model_type": kind},
        image_token_id=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = random(transformers.LlavaForConditionalGeneration(config))
    ids, mask = rows([[3, -25, 2], [1, -25, 7]])
    pixels = torch.randn(2, 3, 30, 30)
    outputs = {"image_features": torch.cat(list(model.model.get_image_features(pixels).pooler_output))}
    outputs["logits"] = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits
    agrees(
        tmp_path, "llava", model, {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}, outputs
    )


PINPOINTS = {
    "wide": ([[30, 90], [90, 30], [60, 60]], [(40, 111), (200, 61), (33, 33)]),
    "one": ([[60, 30]], [(17, 90), (90, 17), (1, 1)]),
    "many": (
        [[30, 60], [60, 30], [60, 60], [30, 120], [120, 30], [90, 60]],
        [(500, 120), (1, 300), (61, 59)],
    ),
}


@torch.no_grad()
@pytest.mark.parametrize(("points", "sizes"), PINPOINTS.values(), ids=PINPOINTS)
@pytest.mark.parametrize("layer", [-2, 3, [-1, 2]], ids=str)
def test_llava_next(tmp_path, points, sizes, layer):
    config = transformers.LlavaNextConfig(
        vision_config={**VISION, "model_type": "clip_vision_model"}, text_config={**TEXT, "model_type": "llama"},
        image_token_id=IMAGE, image_grid_pinpoints=points, vision_feature_layer=layer,
    )  # fmt: skip
    theirs = transformers.LlavaNextForConditionalGeneration(config)
    wide = 1 if isinstance(layer, int) else len(layer)
    if wide > 1:  # whose projector does not count the layers
        theirs.model.multi_modal_projector.linear_1 = nn.Linear(wide * 24, 32)
    model = random(theirs)
    counts = [
        transformers.models.llava_next.modeling_llava_next.image_size_to_num_patches(size, points, 30)
        for size in sizes
    ]
    pixels = torch.zeros(len(sizes), max(counts), 3, 30, 30)
    for i, count in enumerate(counts):
        pixels[i, :count] = torch.randn(count, 3, 30, 30)
    sizes = torch.tensor(sizes)
    packed = list(model.model.get_image_features(pixels, sizes).pooler_output)
    a, b, c = (-len(each) for each in packed)
    ids, mask = rows([[3, a, 2, b, 4], [5, c, 1]])
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "image_sizes": sizes}
    agrees(
        tmp_path,
        "llava",
        model,
        inputs,
        {"image_features": torch.cat(packed), "logits": model(**inputs).logits},
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("patch", "grids", "norm"), [(4, [(3, 5), (1, 7)], True), (5, [(6, 1), (2, 2)], False)]
)
def test_fuyu(tmp_path, patch, grids, norm):
    text = {**TEXT, "model_type": "persimmon", "qk_layernorm": norm, "partial_rotary_factor": 0.25}
    text.pop("num_key_value_heads")
    theirs = transformers.FuyuForCausalLM(
        transformers.FuyuConfig(text_config=text, patch_size=patch, image_token_id=IMAGE)
    )
    model = random(theirs)
    lines = [[each for _ in range(r) for each in (-c, 1)] for r, c in grids]
    ids, mask = rows([[*lines[0], 6], [*lines[1], 4]])
    patches = [torch.randn(1, r * c, 3 * patch**2) for r, c in grids]
    indices = torch.full_like(ids, -1)
    for row, (r, c) in enumerate(grids):
        places = (ids[row] == IMAGE).nonzero()[:, 0]
        ids[row, places[c - 1 :: c] + 1] = IMAGE + 1  # the word that closes a row
        indices[row, places] = torch.arange(r * c)
    embeddings, logits = [], []
    for row, each in enumerate(patches):
        words = model.get_input_embeddings()(ids[row : row + 1]).clone()
        words[0, ids[row] == IMAGE] = model.model.vision_embed_tokens(each)[0]
        embeddings.append(words)
        seen = mask[row : row + 1]
        logits.append(model(inputs_embeds=words, attention_mask=seen).logits)
    inputs = {"input_ids": ids, "attention_mask": mask, "image_patches_indices": indices}
    inputs |= {f"image_patches{i}": each for i, each in enumerate(patches)}
    agrees(
        tmp_path, "fuyu", model, inputs, {"inputs_embeds": torch.cat(embeddings), "logits": torch.cat(logits)}
    )


BLIPS = {
    "every third": {"cross_attention_frequency": 3, "num_hidden_layers": 5, "hidden_act": "relu"},
    "every": {"cross_attention_frequency": 1, "num_hidden_layers": 3, "layer_norm_eps": 1e-5},
    "first only": {"cross_attention_frequency": 9, "num_hidden_layers": 2},
}
OPT = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
       "vocab_size": 77, "max_position_embeddings": 128, "word_embed_proj_dim": 32}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("options", BLIPS.values(), ids=BLIPS)
@pytest.mark.parametrize(("queries", "biased"), [(1, True), (7, False)])
def test_blip2(tmp_path, options, queries, biased):
    qformer = {
        "hidden_size": 20,
        "intermediate_size": 28,
        "num_attention_heads": 5,
        "encoder_hidden_size": 24,
    }
    config = transformers.Blip2Config(
        vision_config={**VISION, "qkv_bias": biased, "hidden_act": "gelu" if biased else "quick_gelu"},
        qformer_config={**qformer, **options}, num_query_tokens=queries, image_token_id=IMAGE,
        text_config=OPT if biased else {**TEXT, "model_type": "llama"},
    )  # fmt: skip
    model = random(transformers.Blip2ForConditionalGeneration(config))
    ids, mask = rows([[-queries, 5], [-queries, 2], [-queries, 9]], "right")
    pixels = torch.randn(3, 3, 30, 30)
    seen = model.vision_model(pixels).last_hidden_state
    asked = model.qformer(query_embeds=model.query_tokens.expand(3, -1, -1), encoder_hidden_states=seen)
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    outputs = {
        "image_embeds": seen,
        "query_output": asked.last_hidden_state,
        "logits": model(**inputs).logits,
    }
    agrees(tmp_path, "qformer", model, inputs, outputs)


@torch.no_grad()
@pytest.mark.parametrize("options", BLIPS.values(), ids=BLIPS)
def test_a_qformer_alone(tmp_path, options):
    sizes = {"hidden_size": 20, "intermediate_size": 28, "num_attention_heads": 5, "encoder_hidden_size": 12}
    config = transformers.Blip2QFormerConfig(**{"num_hidden_layers": 4, **sizes, **options}, vocab_size=9)
    model = random(transformers.Blip2QFormerModel(config))
    given = {"query_embeds": torch.randn(3, 4, 20), "encoder_hidden_states": torch.randn(3, 11, 12)}
    given["encoder_attention_mask"] = (torch.rand(3, 11) > 0.3).long()
    made = model(**given)
    outputs = {"last_hidden_state": made.last_hidden_state, "pooler_output": made.pooler_output}
    agrees(tmp_path, "qformer", model, given, outputs)


@torch.no_grad()
@pytest.mark.parametrize(("heads", "head", "depth", "normed"), [(3, 4, 1, True), (2, 16, 3, False)])
def test_idefics1_resampler(tmp_path, heads, head, depth, normed):
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    config = transformers.IdeficsConfig(
        vision_config={"embed_dim": 20}, perceiver_config={"qk_layer_norms_perceiver": normed}
    )
    model = random(IdeficsPerceiverResampler(config, 20, depth, heads, head, 3))
    model.save_pretrained = lambda folder: (
        folder.mkdir(), save_file(model.state_dict(), folder / "model.safetensors")
    )  # fmt: skip
    told = {"embed_dim": 20, "depth": depth, "n_heads": heads, "head_dim": head, "n_latents": 3}
    told |= {"qk_layer_norms_perceiver": normed, "intermediate": 80}
    x = torch.randn(3, 17, 20)
    agrees(tmp_path, "perceiver_resampler", model, {"context": x}, {"latents": model(x)}, told)


@torch.no_grad()
@pytest.mark.parametrize(
    ("latents", "depth", "key_heads", "kind"), [(1, 1, 4, "mistral"), (6, 3, 1, "llama")]
)
def test_idefics2(tmp_path, latents, depth, key_heads, kind):
    perceiver = {"resampler_n_latents": latents, "resampler_depth": depth, "resampler_n_heads": 4,
                 "num_key_value_heads": key_heads, "resampler_head_dim": 6, "hidden_size": 32}  # fmt: skip
    config = transformers.Idefics2Config(
        vision_config=VISION,
        perceiver_config=perceiver,
        text_config={**TEXT, "model_type": kind},
        image_token_id=IMAGE,
    )
    model = random(transformers.Idefics2ForConditionalGeneration(config))
    ids, mask = rows([[2, -latents, 3, -latents, 1], [4, -latents, 2]])
    pixels, shown = torch.zeros(2, 2, 3, 30, 42), torch.zeros(2, 2, 30, 42, dtype=torch.long)
    for (row, place), (height, width) in {(0, 0): (30, 42), (0, 1): (12, 36), (1, 0): (30, 18)}.items():
        pixels[row, place, :, :height, :width] = torch.randn(3, height, width)
        shown[row, place, :height, :width] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "pixel_attention_mask": shown}
    features = torch.cat(list(model.model.get_image_features(pixels, shown).pooler_output))
    features = features.view(3, latents, -1)
    agrees(
        tmp_path,
        "perceiver_resampler",
        model,
        inputs,
        {"connector": features, "logits": model(**inputs).logits},
    )


SAM = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "mlp_dim": 36, "image_size": 80,
       "patch_size": 8, "window_size": 4, "global_attn_indexes": [0, 2], "output_channels": 6}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("options", [None, {}, {"use_rel_pos": False, "qkv_bias": False, "window_size": 3},
                                     {"use_abs_pos": False, "hidden_act": "relu", "global_attn_indexes": [1]}],
                         ids=["1.3B", "7B", "7B without relative positions", "7B without absolute"])  # fmt: skip
def test_deepseek_vl(tmp_path, options):
    parts = {
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "text_config": {**TEXT, "model_type": "llama"},
        "image_token_id": IMAGE,
    }
    hybrid = options is not None
    inputs = {"pixel_values": torch.randn(2, 3, 30, 30)}
    if hybrid:
        sam = {**SAM, **options, "model_type": "sam_vision_model"}
        config = transformers.DeepseekVLHybridConfig(**parts, high_res_vision_config=sam)
        model = random(transformers.DeepseekVLHybridForConditionalGeneration(config))
        inputs["high_res_pixel_values"] = torch.randn(2, 3, 80, 80)
    else:
        model = random(
            transformers.DeepseekVLForConditionalGeneration(transformers.DeepseekVLConfig(**parts))
        )
    outputs = {"image_features": model.model.get_image_features(**inputs).pooler_output}
    if hybrid:
        high = model.model.get_high_res_image_features(inputs["high_res_pixel_values"])
        outputs["high_res_features"] = high.last_hidden_state
    ids, mask = rows([[2, -25, 3], [4, -25, 7]])
    inputs |= {"input_ids": ids, "attention_mask": mask}
    outputs["logits"] = model(**inputs).logits
    agrees(tmp_path, "deepseek_vl", model, inputs, outputs)


def test_pixels_of_fuyus_patches_stand_as_in_its_processor():
    """Rows, columns, colours: what the cases' `image_patches` are made of."""
    from chiasm import parts

    pixels = torch.rand(1, 3, 8, 12)
    made = parts.build("encoder", {"type": "patches", "patch_size": 4})(pixels)
    expected = rearrange((pixels - 0.5) / 0.5, "n c (r p) (s q) -> n r s (p q c)", p=4, q=4)
    torch.testing.assert_close(made, expected)
