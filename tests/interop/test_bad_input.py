"""What is wrong with a folder is said in a sentence, whatever it is."""

import copy
import json
from contextlib import suppress

import pytest
from safetensors.torch import load_file, save_file

from chiasm.errors import CheckpointError, ChiasmError
from chiasm.interop import Folder, Original, find_family, import_checkpoint, load, recognise
from chiasm.interop.convert import _numbers
from chiasm.interop.family import all_families, reading_config
from chiasm.interop.shapes.activations import activation_name
from chiasm.storage.weights import read_tensors

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7}  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 60, "max_position_embeddings": 64}  # fmt: skip
SIGLIP = {"model_name": "siglip_tiny", "image_size": 28, "select_layer": -1, "pixel_mean": [0.5] * 3,
          "pixel_std": [0.5] * 3}  # fmt: skip
OPT = {**TEXT, "model_type": "opt", "ffn_dim": 16, "word_embed_proj_dim": 16}
CONFIGS = {
    "llava": {
        "config": {**TEXT, "model_type": "llava_llama", "mm_projector_type": "linear"},
        "vision_config": VISION,
    },
    "llava-hf": {
        "model_type": "llava_next",
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
        "text_config": {**TEXT, "model_type": "llama"},
        "image_grid_pinpoints": [[28, 56]],
    },
    "blip2-hf": {
        "model_type": "blip-2",
        "vision_config": VISION,
        "text_config": OPT,
        "qformer_config": {**{k: VISION[k] for k in list(VISION)[:4]}, "encoder_hidden_size": 16},
        "num_query_tokens": 3,
    },
    "fuyu": {"model_type": "fuyu", "text_config": {**TEXT, "model_type": "persimmon"}, "patch_size": 8},
    "deepseek-vl": {
        "model_type": "multi_modality",
        "vision_config": {"cls": "CLIPVisionTower", "params": SIGLIP},
        "aligner_config": {"cls": "MlpProjector", "params": {"projector_type": "mlp_gelu", "depth": 2}},
        "language_config": TEXT,
        "siglip_tiny": {"patch_size": 7, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2},
    },
    "honeybee": {
        "vision_config": VISION,
        "text_config": TEXT,
        "projector_config": {
            "projector_type": "c-abs",
            "depth": 1,
            "mlp_depth": 1,
            "hidden_size": 8,
            "num_query_tokens": 4,
        },
    },
    "flamingo": {
        "lm": {"type": "llama", "cfg": TEXT},
        "cross_attn_every_n_layers": 1,
        "vision": {"image_size": 28, "patch_size": 7, "width": 16, "layers": 1, "heads": 2},
        "perceiver": {"depth": 1, "dim_head": 4, "heads": 2, "num_latents": 3},
        "gated": {},
        "media_token_id": 59,
    },
    "gvt": {
        "visual_encoder": {"img_size": 28, "patch_size": 7, "embed_dim": 16, "depth": 1, "num_heads": 2},
        "perceiver": {"depth": 1, "dim_head": 4, "heads": 2, "num_latents": 3, "num_media_embeds": 1},
        "llm_hidden": 16,
        "llm": TEXT,
    },
    "moe-llava": {
        "llm": {**TEXT, "model_type": "moe_llava_stablelm"},
        "vision": VISION,
        "moe": {"moe_layers_idx": [0], "num_experts": [2], "top_k_experts": 1},
        "projector": "linear",
        "select_layer": -2,
    },
}


def places(config):
    """Every key, as its path."""
    for key, value in config.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in places(value))


def changed(config, path, *value):
    made = copy.deepcopy(config)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if value:
        inner[path[-1]] = value[0]
    else:
        del inner[path[-1]]
    return made


@pytest.mark.parametrize("family", CONFIGS)
def test_a_config_without_a_key_or_with_nonsense_is_a_sentence(family):
    layout, config = find_family(family), CONFIGS[family]
    for path in places(config):
        for wrong in (changed(config, path), changed(config, path, "nonsense"), changed(config, path, None)):
            with suppress(ChiasmError), reading_config("here", layout):  # any other error is a failure
                layout.names(wrong, layout.model(wrong).keys())


@pytest.mark.parametrize("family", sorted(all_families()))
@pytest.mark.parametrize(
    "files", [{}, {"config.json": {}, "x.json": {}}, {"config.json": {"model_type": ["x"]}}], ids=len
)
def test_a_folder_of_something_else_is_no_checkpoint_of_the_family_that_is_named(tmp_path, family, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ChiasmError):
        import_checkpoint(tmp_path, tmp_path / "out", layout=family)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("theirs", [["gelu"], {"gelu": 1}, None, 5, "glu" * 500])
def test_what_is_no_activation_is_a_sentence(theirs):
    with pytest.raises(CheckpointError, match="the activation is ") as caught:
        activation_name(theirs)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_lacking_is_named(family):
    layout, config = find_family(family), CONFIGS[family]
    section = {"llava": "config", "moe-llava": "moe", "fuyu": None, "flamingo": "media_token_id", "gvt": "llm",
               "deepseek-vl": "aligner_config"}.get(family, "vision_config")  # fmt: skip
    if section is None:
        return
    with pytest.raises(CheckpointError, match=f"here: the config lacks '{section}', which '{family}' needs"):
        load(layout, Original(changed(config, (section,)), {}), where="here")


@pytest.mark.parametrize(
    "points", ["[(", "[" * 5000, "-" * 5000 + "1", "x" * 20_000, "print(1)", 5, [[1]], [["a", "b"]]]
)
def test_canvases_that_are_none_are_a_sentence(points):
    layout, config = find_family("llava"), copy.deepcopy(CONFIGS["llava"])
    config["config"] |= {"image_aspect_ratio": "anyres", "image_grid_pinpoints": points}
    with pytest.raises(CheckpointError):
        layout.plan(config, (), "here")


def test_a_config_that_is_nested_without_end_is_a_sentence():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(CheckpointError, match="here: the config is not as 'fuyu' has it"):
        find_family("fuyu").plan(deep, (), "here")


@pytest.mark.parametrize("content", ['{"model_type": ["llava"]}', '{"architectures": 3}', "{}"])
def test_a_config_of_another_form_is_of_no_known_layout(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="no known layout"):
        recognise(Folder(tmp_path))


@pytest.fixture
def sharded(tmp_path):
    import transformers

    told = {key: value for key, value in CONFIGS["llava-hf"].items() if key != "image_grid_pinpoints"}
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(**{**told, "model_type": "llava"}, image_token_id=59)
    )
    model.save_pretrained(tmp_path / "public", max_shard_size="10KB")
    _numbers(60).save_pretrained(tmp_path / "public")
    assert len(list((tmp_path / "public").glob("*.safetensors"))) > 2
    return tmp_path / "public"


def test_a_shard_that_is_cut_off_is_named_and_nothing_is_left_behind(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read as a checkpoint"):
        import_checkpoint(sharded, sharded.parent / "ours")
    assert not (sharded.parent / "ours").exists()


def test_a_shard_of_no_bytes_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read as a checkpoint"):
        import_checkpoint(sharded, sharded.parent / "ours")


def test_a_shard_that_the_index_names_but_is_not_there_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"there is no checkpoint file .*{shard.name}"):
        import_checkpoint(sharded, sharded.parent / "ours")


def test_a_tensor_that_the_index_promises_but_its_shard_lacks_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[-1]
    tensors = load_file(shard)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, shard)
    with pytest.raises(CheckpointError, match=f"promises 1 tensors that its shards lack: {lost}"):
        import_checkpoint(sharded, sharded.parent / "ours")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [("intermediate_size", 24, "mlp.fc1.weight"), ("patch_size", 14, "patch_embedding.weight")],
)
def test_a_config_that_contradicts_the_tensors_is_told_by_the_originals_names(sharded, key, value, named):
    file = sharded / "config.json"
    told = json.loads(file.read_text())
    told["vision_config"][key] = value
    file.write_text(json.dumps(told))
    with pytest.raises(
        CheckpointError, match=rf"config contradicts .*vision_tower\..*{named} is \(.*the config"
    ):
        import_checkpoint(sharded, sharded.parent / "ours")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "[" * 100_000, "config.json is not JSON: it is nested too deeply"),
        ("other.yaml", "a: 2024-13-45", "other.yaml"),
        ("other.yaml", "[" * 100_000, "other.yaml"),
    ],
)
def test_files_of_hostile_content_are_a_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=said):
        recognise(Folder(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "it holds no object ({...}) but []"),
        ("{}", "its weight_map is None; it must be an object of tensors and files"),
        ('{"weight_map": [1]}', "its weight_map is [1]; it must be"),
    ],
)
def test_an_index_of_another_shape_is_a_sentence(tmp_path, content, reason):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_tensors(tmp_path)
    assert f"is not an index of checkpoint shards: {reason}" in str(caught.value)


def test_an_index_that_is_nested_without_end_is_a_sentence(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is not an index of checkpoint shards"):
        read_tensors(tmp_path)
