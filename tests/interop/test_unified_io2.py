"""Unified-IO 2 as it is published: imported with all that is left aside, asked, and given back."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from chiasm.data.documents import document, draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.convert import build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

LLAMA = 32_000
# As `Config.to_dict` writes it, of small sizes.
CONFIG = {
    "t5_config": {
        "vocab_size": 33280, "image_vocab_size": 24, "image_patch_size": 16, "audio_vocab_size": 10, "emb_dim": 16,
        "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 2, "head_dim": 8, "mlp_dim": 20,
        "mlp_activations": ["silu", "linear"], "dropout_rate": 0.0, "dropout_broadcast_dims": [-2],
        "logits_via_embedding": True, "float32_attention_logits": True, "decoder_xattention_internval": 1,
        "qk_norm": True, "dalle_attn_mask": True, "dynamic_unk_mask": True, "encoder_max_image_length": 9,
        "encoder_max_audio_length": 128, "encoder_max_text_length": 64, "decoder_max_image_length": 16,
        "decoder_max_audio_length": 512, "decoder_max_text_length": 64, "text_pos_emb": "llama_rope",
        "image_pos_emb": "llama_rope", "audio_pos_emb": "llama_rope", "image_history_pos_emb": "llama_rope",
        "audio_history_pos_emb": "llama_rope", "image_tokenizer_type": "vqgan", "default_image_size": [16, 16],
        "default_image_vit_size": [24, 24], "default_image_history_vit_size": [16, 16],
        "default_audio_size": [256, 128], "default_audio_vit_size": [256, 128],
        "default_audio_history_vit_size": [256, 128], "image_vit_patch_size": 8, "audio_patch_size": 16,
        "audio_vit_patch_size": 16,
    },
    "image_history_cfg": {"resampler_type": "perceiver", "max_frames": 8, "xattention_index": [0, 1]},
    "audio_history_cfg": {"resampler_type": "perceiver", "max_frames": 8},
    "freeze_vit": True,
    "input_modalities": ["text", "image", "image_history", "audio", "audio_history"],
    "target_modalities": ["text", "image", "audio"],
    "sequence_length": {"is_training": True, "image_input_samples": 576, "num_frames": 4},
    "image_vqgan": {
        "embed_dim": 4, "n_embed": 20, "double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3,
        "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [4], "dropout": 0,
        "default_input_size": [16, 16], "patch_size": [4, 4], "checkpoint_path": "",
    },
    "audio_vqgan": {"vocab_size": 8192, "proj_dim": 32},
    "image_vit_cfg": {
        "patch_size": 8, "pos_patch_size": 8, "emb_dim": 8, "num_heads": 2, "num_layers": 2, "head_dim": 4,
        "mlp_dim": 12, "mlp_activations": ["gelu"], "dropout_rate": 0.0, "dropout_broadcast_dims": [],
        "float32_attention_logits": True, "default_input_size": [16, 16], "num_pos": 5,
    },
    "audio_vit_cfg": {"vit_embed": True, "patch_size": 16},
    "use_image_vit": True, "use_audio_vit": True, "use_image_history_vit": True, "use_audio_history_vit": True,
}  # fmt: skip
ASIDE = (
    "audio_token_embedder.weight",
    "input_embedders.image_history.resampler.perceiver.latents",
    "input_embedders.audio.projection.weight",
    "target_embedders.audio.vqgan.quantize.embedding.weight",
)


def changed(**places):
    """The config with other values, by dotted place."""
    config = json.loads(json.dumps(CONFIG))
    for place, value in places.items():
        *above, key = place.split("__")
        inner = config
        for each in above:
            inner = inner[each]
        inner[key] = value
    return config


def weights(config):
    """Of a new model of this config, by our names."""
    model = find_family("unified-io-2").model(config)
    recipe = load_recipe({"name": "new", "model": model, "data": {}, "stages": []})
    return build_model(recipe.model, None).state_dict()


def with_llamas_words(folder):
    """A tokenizer of as many words as Llama's, with its first three."""
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<s>", "</s>", "Where", "is", "the", "dog"]
    words += [f"word{i}" for i in range(LLAMA - len(words))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """The folder and its tensors; names and values are those that the family gives a model of this config."""
    folder, family = tmp_path_factory.mktemp("uio2") / "public", find_family("unified-io-2")
    torch.manual_seed(0)
    ours = weights(CONFIG)
    tensors = family.names(CONFIG).to_theirs(ours, "the test")
    tensors = {name: torch.randn_like(tensor) * 0.3 for name, tensor in tensors.items()}
    tensors |= {name: torch.randn(3, 4) for name in ASIDE}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, folder / "model.safetensors")
    with_llamas_words(folder)
    return folder, tensors


@pytest.fixture(scope="module")
def imported(public, tmp_path_factory):
    return import_checkpoint(public[0], tmp_path_factory.mktemp("uio2") / "ours")


def asked(*content):
    return Sample("x", (Message("user", content),))


def test_it_is_recognised_and_given_back_as_it_came_with_what_was_left_aside(public, imported, tmp_path):
    folder, tensors = public
    assert recognise(Folder(folder)).name == "unified-io-2"
    about = (imported / "recipe.yaml").read_text()
    assert "without its audio and image history" in about.replace("\n", " ")
    export_checkpoint(imported, tmp_path / "theirs")
    after = load_file(tmp_path / "theirs/model.safetensors")
    assert after.keys() == tensors.keys()
    assert all(torch.equal(tensors[name], after[name]) for name in tensors)


def test_a_word_of_llama_has_the_row_that_the_original_gives_it(public, imported):
    rows, table = public[1]["text_token_embedder.weight"], load_model(imported).language.table.weight
    assert torch.equal(table[:3], rows[[2, 0, 1]])  # <unk>, <s>, </s>
    assert torch.equal(table[3:], rows[3:])


def test_a_prompt_says_which_modality_is_asked_for_and_ends(imported):
    model = load_model(imported)
    words, image = (
        document(model.contract, asked("Where is"), prompt=True),
        draw_prompt(model.contract, asked("Where is")),
    )
    text_mark, image_mark = 33218, 33221  # behind 1200 extra ids, 16 histories and two inputs
    assert words.ids == [text_mark, 3, 4, 2, 1]
    assert words.opens == [True, False, False, False, True]  # the decoder begins with <s>
    assert image.ids == [image_mark, 3, 4, 2]
    assert image.opens == [True, False, False, False]


def test_places_in_an_image_are_words_that_answers_show(imported):
    tokenizer = load_model(imported).language.tokenizer
    place = tokenizer.encode_plain("<extra_id_200>")
    assert place == (LLAMA + 1200 - 1 - 200,)  # counted backwards
    assert tokenizer.decode(place) == "<extra_id_200>"
    assert tokenizer.decode(tokenizer.encode("[Text] [S]")) == ""


def test_it_answers_in_words_about_an_image_and_draws(imported):
    model = load_model(imported)
    question = [{"role": "user", "content": [Image.new("RGB", (50, 31), "red"), "Where is the dog"]}]
    assert str(model.chat(question, tokens=3)) == str(model.chat(question, tokens=3))
    images = [model.generate("the dog", seed=seed, guidance=11)[0] for seed in (1, 1, 2)]
    assert images[0].size == (16, 16)
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()


@pytest.mark.parametrize(
    ("changes", "place", "value"),
    [
        ({"t5_config__qk_norm": False}, "language.normalised", False),
        ({"t5_config__decoder_xattention_internval": 2}, "language.cross_every", 2),
        ({"t5_config__mlp_activations": ["gelu"]}, "language.gated", False),
        ({"t5_config__mlp_activations": ["linear", "relu"]}, "language.activation", "relu"),
        ({"t5_config__encoder_max_image_length": 4}, "language.read_scale", 2.0),
        ({"image_vit_cfg__num_layers": 5}, "encoder.depth", 5),
        ({"image_vqgan__num_res_blocks": 2}, "image_tokenizer.depth", 2),
        (
            {"image_vqgan__resolution": 256, "image_vqgan__attn_resolutions": [128]},
            "image_tokenizer.attention_sizes",
            [8],
        ),
        ({"t5_config__image_vocab_size": 40}, "heads.image.alphabet.rows", 40),
    ],
)
def test_what_the_config_says_is_done_and_every_tensor_has_a_name(changes, place, value):
    config, family = changed(**changes), find_family("unified-io-2")
    plan = family.plan(config, [], "the test")
    found = {**plan.model, "heads.image": plan.model["heads"]["image"]}
    slot = "heads.image" if place.startswith("heads.image") else place.split(".")[0]
    found = found[slot]
    for key in place.removeprefix(slot + ".").split("."):
        found = found[key]
    assert found == value
    ours = weights(config)
    again, _ = plan.names.to_ours(plan.names.to_theirs(ours, "the test"), "the test")
    own = {"encoder.mean", "encoder.deviation"}
    assert again.keys() == ours.keys() - own
    assert all(torch.equal(ours[key], again[key]) for key in again)


@pytest.mark.parametrize(("inputs", "targets"), [(["text"], ["image"]), (["text", "image"], ["text"])])
def test_a_checkpoint_may_lack_modalities(inputs, targets):
    config = changed(input_modalities=inputs, target_modalities=targets)
    model = find_family("unified-io-2").plan(config, [], "the test").model
    assert ("encoder" in model) == ("image" in inputs)
    assert ("heads" in model) == ("image" in targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t5_config__window": 7}, "t5_config.window = 7"),
        ({"t5_config__image_pos_emb": "learnable"}, "t5_config.image_pos_emb is 'learnable'"),
        ({"t5_config__head_dim": 16}, "emb_dim is 16, but 2 heads of head_dim 16 are 32"),
        ({"t5_config__mlp_activations": ["tanh"]}, r"mlp_activations is \['tanh'\]"),
        (
            {"t5_config__image_vit_patch_size": 4},
            "patch_size is 8, but t5_config.image_vit_patch_size is 4",
        ),
        ({"t5_config__default_image_size": [16, 32]}, r"default_image_size is \[16, 32\]"),
        ({"image_vqgan__default_input_size": [32, 32]}, r"default_input_size is \[32, 32\]"),
        ({"image_vit_cfg__num_pos": 7}, "num_pos is 7"),
        ({"image_vqgan__double_z": True}, "image_vqgan.double_z is True"),
        ({"use_image_vit": False}, "use_image_vit is False"),
        ({"input_modalities": ["image"]}, "a prompt without text is unknown"),
    ],
)
def test_what_is_not_known_is_refused_by_name(changes, message):
    with pytest.raises(CheckpointError, match=message):
        find_family("unified-io-2").plan(changed(**changes), [], "the test")
