import json
import sys

import pytest
import torch
import transformers

from chiasm import parts
from chiasm.errors import CheckpointError, ChiasmError, RecipeError
from chiasm.storage.weights import load_into

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50000,
}
OPENAI = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = ([0.5] * 3, [0.5] * 3)
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

# The saved model and its config; the bare vision model to compare with, its normalisation, and its tokens
# before the patches.
FAMILIES = {
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", "CLIPVisionModel", OPENAI, 1),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", "SiglipVisionModel", HALF, 0),
    "dinov2": ("Dinov2Model", "Dinov2Config", "Dinov2Model", IMAGENET, 1),
    "dinov2 with registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        IMAGENET,
        5,
    ),
    "vit-mae": ("ViTMAEForPreTraining", "ViTMAEConfig", "ViTMAEModel", IMAGENET, 1),
    "deit": ("DeiTForImageClassification", "DeiTConfig", "DeiTModel", IMAGENET, 2),
    "vit": ("ViTForImageClassification", "ViTConfig", "ViTModel", HALF, 1),
}


@pytest.fixture(params=FAMILIES)
def family(request, tmp_path):
    saved, config, bare, normalisation, prefix = FAMILIES[request.param]
    kind = getattr(transformers, config)
    settings = kind(**{key: value for key, value in SMALL.items() if hasattr(kind(), key)})
    if hasattr(settings, "mlp_ratio"):
        settings.mlp_ratio = 2
    getattr(transformers, saved)(settings).save_pretrained(tmp_path)
    options = {"mask_ratio": 0.0} if request.param == "vit-mae" else {}
    reference = getattr(transformers, bare).from_pretrained(tmp_path, **options).eval()
    return tmp_path, reference, normalisation, prefix


def encoder(folder, **options):
    return parts.build("encoder", {"type": "transformers", "checkpoint": str(folder), **options}).eval()


@torch.no_grad()
def bare(reference, pixels, normalisation):
    """Hidden states and the normed last one, by the untouched model of transformers."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in normalisation)
    extra = {}
    if type(reference).__name__ == "ViTMAEModel":
        extra["noise"] = torch.arange((pixels.shape[2] // 8) * (pixels.shape[3] // 8)).expand(len(pixels), -1)
    if pixels.shape[-2:] != (32, 32) and "Dinov2" not in type(reference).__name__:
        extra["interpolate_pos_encoding"] = True
    out = reference((pixels - mean) / deviation, output_hidden_states=True, **extra)
    last = out.last_hidden_state
    return out.hidden_states, reference.post_layernorm(last) if type(
        reference
    ).__name__ == "CLIPVisionModel" else last


@pytest.mark.parametrize("layer", [-1, -2, 1, 3])
def test_a_layer_is_the_hidden_state_of_the_bare_model(family, layer):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(2, 3, 32, 32)
    states, _ = bare(reference, pixels, normalisation)
    with torch.no_grad():
        made = encoder(folder, layer=layer)(pixels)
    torch.testing.assert_close(made, states[layer][:, prefix:].reshape(2, 4, 4, 24), rtol=1e-5, atol=1e-5)


def test_layer_zero_is_the_embeddings(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 32, 32)
    states, _ = bare(reference, pixels, normalisation)
    torch.testing.assert_close(encoder(folder, layer=0)(pixels), states[0][:, prefix:].reshape(1, 4, 4, 24))


@torch.no_grad()
def test_the_final_norm_is_that_of_the_bare_model(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 32, 32)
    _, normed = bare(reference, pixels, normalisation)
    made = encoder(folder, final_norm=True)(pixels)
    torch.testing.assert_close(made, normed[:, prefix:].reshape(1, 4, 4, 24), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_another_size_interpolates_the_positions(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 48, 32)
    states, _ = bare(reference, pixels, normalisation)
    part = encoder(folder)
    assert part.grid(48, 32) == (6, 4)
    torch.testing.assert_close(
        part(pixels), states[-1][:, prefix:].reshape(1, 6, 4, 24), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_a_joined_class_token_stands_behind_every_feature(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 32, 32)
    states, _ = bare(reference, pixels, normalisation)
    if prefix == 0:
        with pytest.raises(RecipeError, match="no class token"):
            encoder(folder, class_token="join")
        return
    part = encoder(folder, class_token="join")
    assert part.width == 48
    made = part(pixels)
    torch.testing.assert_close(made[..., 24:], states[-1][:, 0].expand(1, 4, 4, 24), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made[..., :24], encoder(folder)(pixels))


@pytest.mark.parametrize("options", [{"layer": -2}, {"final_norm": True}])
def test_only_what_is_used_is_kept_and_all_of_it_learns(family, options):
    part = encoder(family[0], **options)
    part(torch.rand(1, 3, 32, 32)).square().sum().backward()
    assert [key for key, p in part.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_preprocessor_beside_the_checkpoint_says_how_to_normalise(family):
    folder = family[0]
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]})
    )
    part = encoder(folder)
    assert part.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert part.deviation.flatten().tolist() == [1, 2, 4]


@torch.no_grad()
def test_a_loaded_encoder_is_rebuilt_without_its_checkpoint(family):
    folder, pixels = family[0], torch.rand(1, 3, 48, 32)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]})
    )
    part = encoder(folder, layer=-2, final_norm=True)
    options = json.loads(json.dumps(part.standalone()))
    other = parts.build(
        "encoder", {"type": "transformers", "layer": -2, "final_norm": True, **options}
    ).eval()
    load_into(other, part.state_dict(), "here")
    assert torch.equal(other(pixels), part(pixels))
    assert str(folder) not in json.dumps(options)


@torch.no_grad()
def test_a_first_class_token_stands_in_one_row_with_the_patches(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 32, 32)
    if prefix == 0:
        with pytest.raises(RecipeError, match="no class token to put first"):
            encoder(folder, class_token="first")
        return
    states, _ = bare(reference, pixels, normalisation)
    part = encoder(folder, class_token="first")
    assert part.grid(32, 32) == (1, 17)
    expected = torch.cat([states[-1][:, :1], states[-1][:, prefix:]], 1)[:, None]
    torch.testing.assert_close(part(pixels), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_several_layers_are_joined_in_their_order(family):
    folder, reference, normalisation, prefix = family
    pixels = torch.rand(1, 3, 32, 32)
    states, _ = bare(reference, pixels, normalisation)
    expected = torch.cat([states[layer][:, prefix:] for layer in (-1, 1)], -1).reshape(1, 4, 4, 48)
    torch.testing.assert_close(encoder(folder, layer=[-1, 1])(pixels), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_siglip_2_of_one_resolution_is_a_siglip(tmp_path):
    """As the hub has it: the config says siglip, the text tower another vocabulary."""
    config = transformers.SiglipConfig(vision_config=SMALL, text_config={**TEXT, "vocab_size": 256})
    both = transformers.SiglipModel(config).eval()
    both.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "SiglipImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        )
    )
    pixels = torch.rand(1, 3, 32, 32)
    expected = both.vision_model(2 * pixels - 1).last_hidden_state.reshape(1, 4, 4, 24)
    torch.testing.assert_close(encoder(tmp_path, final_norm=True)(pixels), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_dino_is_a_vit_with_imagenets_normalisation_in_its_preprocessor(tmp_path):
    theirs = transformers.ViTModel(transformers.ViTConfig(**SMALL, qkv_bias=True)).eval()
    theirs.save_pretrained(tmp_path)
    mean, deviation = IMAGENET
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": deviation})
    )
    pixels = torch.rand(1, 3, 32, 32)
    states, normed = bare(theirs, pixels, IMAGENET)
    torch.testing.assert_close(
        encoder(tmp_path, final_norm=True)(pixels), normed[:, 1:].reshape(1, 4, 4, 24), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        encoder(tmp_path, layer=2)(pixels), states[2][:, 1:].reshape(1, 4, 4, 24), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_of_a_model_with_two_towers_the_vision_tower_is_taken(tmp_path, name):
    config = getattr(transformers, f"{name}Config")(vision_config=SMALL, text_config=TEXT, projection_dim=8)
    both = getattr(transformers, f"{name}Model")(config).eval()
    both.save_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 32, 32)
    states, _ = bare(both.vision_model, pixels, OPENAI if name == "CLIP" else HALF)
    made = encoder(tmp_path)(pixels)
    torch.testing.assert_close(made, states[-1][:, -16:].reshape(1, 4, 4, 24), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 2}, "left over: .*layers?.2|stage3"),
        ({"num_hidden_layers": 4}, "missing: .*layers?.3"),
        ({"image_size": 48}, "of another shape: .*position_embedding"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused(family, change, problem):
    file = family[0] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=problem):
        encoder(family[0])


def test_a_checkpoint_whose_weights_are_not_finite_is_refused(tmp_path):
    model = transformers.ViTModel(transformers.ViTConfig(**SMALL))
    model.layers[1].attention.q_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"1 not finite: .*layers?\.1\..*weight"):
        encoder(tmp_path)


@pytest.mark.parametrize(("change", "problem"), [
    ({"hidden_size": "x"}, "cannot load a vision model from .*hidden_size"),
    ({"num_attention_heads": 0}, "cannot load a vision model from|builds no vision model"),
    ({"image_size": []}, "cannot load a vision model from|builds no vision model"),
    ({"model_type": None}, "its config.json has no model_type"),
    ({"hiden_size": 24}, "'hiden_size', a key that transformers' clip_vision_model does not know"),
])  # fmt: skip
def test_a_folders_config_is_judged_as_a_recipes_is(tmp_path, change, problem):
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ChiasmError, match=problem):
        encoder(tmp_path)


def test_of_two_towers_only_the_keys_of_the_vision_tower_count(tmp_path):
    config = transformers.CLIPConfig(vision_config=SMALL, text_config=TEXT, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    written["text_config"]["hiden_size"] = 3
    file.write_text(json.dumps(written))
    encoder(tmp_path)
    written["vision_config"]["hiden_size"] = 3
    file.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match="'hiden_size'"):
        encoder(tmp_path)


def test_code_beside_a_checkpoint_is_not_executed(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
        )
    )
    (tmp_path / "mine.py").write_text("import sys; sys.executed = True")
    with pytest.raises(CheckpointError, match="cannot load a vision model"):
        encoder(tmp_path)
    assert not hasattr(sys, "executed")


def test_a_folder_without_a_model_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="cannot load a vision model"):
        encoder(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs either a checkpoint or a config"),
        ({"checkpoint": "x", "config": {}}, "needs either a checkpoint or a config"),
        ({"config": {"hidden_size": 8}}, "model_type"),
        ({"config": {"model_type": "no_such_model"}}, "no_such_model"),
        ({"config": {**SMALL, "model_type": "clip_vision_model", "hidden_size": "wide"}}, "hidden_size"),
        ({"config": {**SMALL, "model_type": "clip_vision_model"}, "layer": 4}, "layer 4 .* does not exist"),
        ({"config": {**SMALL, "model_type": "clip_vision_model"}, "layer": -5}, "layer -5 .* does not exist"),
    ],
)
def test_bad_options_are_sentences(options, said):
    with pytest.raises(RecipeError, match=said):
        parts.build("encoder", {"type": "transformers", **options})


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 100_000, '{"image_mean": 1, "image_std": 1}'])
def test_a_preprocessor_that_says_nothing_is_a_sentence(tmp_path, content):
    transformers.ViTModel(transformers.ViTConfig(**SMALL)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json does not say how images"):
        encoder(tmp_path)


def test_levels_are_hidden_states_before_the_features(family):
    folder, reference, normalisation, prefix = family
    encoder = parts.build(
        "encoder", {"type": "transformers", "checkpoint": str(folder), "layer": -2, "levels": [1]}
    ).eval()
    pixels = torch.rand(2, 3, 32, 32)
    states, _ = bare(reference, pixels, normalisation)
    first, last = encoder.pyramid(pixels)
    torch.testing.assert_close(first.flatten(1, 2), states[1][:, prefix:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, encoder(pixels))
    assert encoder.level_widths == (24, 24)
    with pytest.raises(RecipeError, match="before the features"):
        parts.build(
            "encoder", {"type": "transformers", "checkpoint": str(folder), "layer": -2, "levels": [2]}
        )
