"""Import and export of public checkpoints, with a tiny LLaVA that transformers itself wrote."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, import_checkpoint, recognise
from chiasm.interop.convert import _numbers
from chiasm.model import Model
from chiasm.model.checkpoint import load_model, save_model, write_model
from chiasm.recipe import load_recipe
from chiasm.storage.integrity import seal
from tiny_recipe import TINY

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {
    "vocab_size": 80,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}


def models(*, tied=False):
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
    )

    parts = {
        "vision_config": CLIPVisionConfig(**VISION, image_size=28, patch_size=7),
        "text_config": LlamaConfig(**TEXT, tie_word_embeddings=tied),
        "image_token_id": 79,
    }
    points = [[28, 56], [56, 28], [56, 56]]
    yield LlavaForConditionalGeneration(LlavaConfig(**parts))
    yield LlavaNextForConditionalGeneration(LlavaNextConfig(**parts, image_grid_pinpoints=points))


@pytest.fixture(scope="module", params=["llava", "llava_next"])
def public(request, tmp_path_factory):
    """A public folder, and the model of transformers that is in it."""
    torch.manual_seed(0)
    model = list(models())[request.param == "llava_next"].eval()
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    _numbers(80).save_pretrained(folder)
    return folder, model


def read(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def test_a_folder_is_recognised_by_its_files_alone(public):
    assert recognise(Folder(public[0])).name == "llava-hf"


def test_import_then_export_gives_the_same_bits(public, tmp_path):
    folder, _ = public
    import_checkpoint(folder, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), read(folder))
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )
    assert (tmp_path / "theirs/tokenizer.json").is_file()


def test_half_precision_comes_back_in_its_type(public, tmp_path):
    shutil.copytree(public[0], tmp_path / "half")
    half = {key: tensor.to(torch.bfloat16) for key, tensor in read(public[0]).items()}
    save_file(half, tmp_path / "half/model.safetensors", metadata={"format": "pt"})
    import_checkpoint(tmp_path / "half", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), half)


def test_transformers_loads_the_export_and_agrees_with_us(public, tmp_path):
    from transformers import AutoModelForImageTextToText

    folder, model = public
    import_checkpoint(folder, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs").eval()
    ids = torch.randint(0, 79, (1, 9))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(again(input_ids=ids).logits, expected)
        ours = load_model(tmp_path / "ours")
        assert torch.allclose(
            ours.language.inner.get_input_embeddings()(ids), model.get_input_embeddings()(ids)
        )


def test_what_was_never_imported_exports_by_its_recipe(public, tmp_path):
    from transformers import AutoModelForImageTextToText

    folder, model = public
    import_checkpoint(folder, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours/origin")
    (tmp_path / "ours/checksums.json").unlink()  # the origin's files are among them
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs", "llava-hf")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs").eval()
    ids = torch.randint(0, 79, (1, 9))
    with torch.no_grad():
        logits = model(input_ids=ids).logits  # the words' alone: the token of an image is new
        torch.testing.assert_close(again(input_ids=ids).logits[..., : logits.shape[-1]], logits)
    with pytest.raises(
        CheckpointError, match=r"say to which family it is to be exported \(--to\): llava-hf$"
    ):
        export_checkpoint(tmp_path / "ours", tmp_path / "other")


def test_what_no_family_takes_is_a_sentence_that_says_why(tmp_path):
    recipe = load_recipe(deepcopy(TINY))
    save_model(Model(recipe.model, texts=["a"]), recipe, tmp_path / "ours")
    with pytest.raises(CheckpointError) as error:
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    for words in (
        "no family takes it: most take back alone what was imported from them, and of the others",
        "'llava-hf' needs the encoder 'transformers'",
        "'vqgan' needs an image tokenizer 'vqgan'",
    ):
        assert words in str(error.value)
    part = load_recipe({"name": "part", "model": {"image_tokenizer": TINY["model"]["image_tokenizer"]},
                        "data": {}, "stages": []})  # fmt: skip
    save_model(Model(part.model), part, tmp_path / "part")
    with pytest.raises(CheckpointError, match=r"'llava-hf' needs 'views', which .*part has not"):
        export_checkpoint(tmp_path / "part", tmp_path / "theirs", "llava-hf")


def test_the_modules_own_names_are_read_too_and_come_back(public, tmp_path):
    folder, model = public
    shutil.copytree(folder, tmp_path / "own")
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    assert "model.multi_modal_projector.linear_1.weight" in tensors
    save_file(tensors, tmp_path / "own/model.safetensors", metadata={"format": "pt"})
    import_checkpoint(tmp_path / "own", tmp_path / "ours")
    import_checkpoint(folder, tmp_path / "usual")
    assert equal(read(tmp_path / "ours"), read(tmp_path / "usual"))
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), tensors)


def test_the_imported_model_chats(public, tmp_path):
    from PIL import Image

    import_checkpoint(public[0], tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    picture = Image.new("RGB", (50, 20), "red")
    reply = model.chat([{"role": "user", "content": [picture, "<5> <7>"]}])
    assert isinstance(str(reply), str)


def test_tied_embeddings_are_stored_once_and_come_back(tmp_path):
    model = next(models(tied=True))
    model.save_pretrained(tmp_path / "public")
    _numbers(80).save_pretrained(tmp_path / "public")
    assert not any("lm_head" in key for key in read(tmp_path / "public"))
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), read(tmp_path / "public"))


def test_what_is_held_by_reference_is_exported_too(tmp_path):
    """A training checkpoint keeps what learns nothing beside it, once for all of a run: here tied words."""
    next(models(tied=True)).save_pretrained(tmp_path / "public")
    _numbers(80).save_pretrained(tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model, recipe = load_model(tmp_path / "ours", "cpu"), load_recipe(tmp_path / "ours/recipe.yaml")
    step = tmp_path / "run/checkpoints/1"
    step.mkdir(parents=True)
    write_model(model, recipe, step, run=tmp_path / "run", frozen=["encoder", "language"])
    shutil.copytree(tmp_path / "ours/origin", step / "origin")
    assert not any(name.startswith(("encoder.", "language.")) for name in read(step))
    export_checkpoint(tmp_path / "run", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), read(tmp_path / "public"))


def test_what_is_damaged_is_not_exported(public, tmp_path):
    import_checkpoint(public[0], tmp_path / "ours")
    seal(tmp_path / "ours")
    tensors = read(tmp_path / "ours")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "ours/model.safetensors")
    with pytest.raises(CheckpointError, match="is not as it was written"):
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def damaged(public, tmp_path, change):
    shutil.copytree(public[0], tmp_path / "bad")
    tensors = read(public[0])
    change(tensors)
    save_file(tensors, tmp_path / "bad/model.safetensors", metadata={"format": "pt"})
    return tmp_path / "bad"


def test_a_config_that_contradicts_a_tensor_names_it_and_both_shapes(public, tmp_path):
    name = "multi_modal_projector.linear_1.weight"
    bad = damaged(public, tmp_path, lambda t: t.update({name: torch.zeros(48, 31)}))
    with pytest.raises(CheckpointError, match=rf"{name} is \(48, 31\) but the config makes it \(48, 32\)"):
        import_checkpoint(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_missing_or_left_over_is_named(public, tmp_path):
    name = "language_model.model.norm.weight"
    bad = damaged(public, tmp_path, lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=rf"1 tensors are missing: {name}"):
        import_checkpoint(bad, tmp_path / "out")
    shutil.rmtree(bad)
    bad = damaged(public, tmp_path, lambda t: t.update({"stray.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"without a place: stray\.weight"):
        import_checkpoint(bad, tmp_path / "out")


def test_a_half_downloaded_shard_is_named(public, tmp_path):
    shutil.copytree(public[0], tmp_path / "cut")
    file = tmp_path / "cut/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut/model\.safetensors cannot be read"):
        import_checkpoint(tmp_path / "cut", tmp_path / "out")
    names = dict.fromkeys(read(public[0]), "model-00001-of-00002.safetensors")
    file.unlink()
    (tmp_path / "cut/model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"no checkpoint file .*model-00001-of-00002"):
        import_checkpoint(tmp_path / "cut", tmp_path / "out")


def test_a_folder_without_a_tokenizer_asks_for_one(public, tmp_path):
    shutil.copytree(public[0], tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(CheckpointError, match="no tokenizer files"):
        import_checkpoint(tmp_path / "mute", tmp_path / "out")
    assert import_checkpoint(tmp_path / "mute", tmp_path / "out", tokenizer=public[0]).is_dir()


def test_vqgan_comes_back_bit_for_bit(tmp_path):
    import yaml

    from chiasm import parts

    told = {"double_z": False, "z_channels": 16, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32}
    told |= {"ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.0}
    params = {"embed_dim": 8, "n_embed": 12, "ddconfig": told}
    spec = {"size": 16, "width": 32, "multipliers": [1, 1], "depth": 1, "attention_sizes": [8]}
    codes = {"type": "nearest", "width": 8, "codebook_size": 12}
    built = parts.build("image_tokenizer", {"type": "vqgan", **spec, "latent_width": 16, "quantizer": codes})
    tensors = built.state_dict() | {"loss.logvar": torch.zeros(())}
    (tmp_path / "public").mkdir()
    torch.save({"state_dict": tensors}, tmp_path / "public/last.ckpt")
    model = {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}
    (tmp_path / "public/model.yaml").write_text(yaml.safe_dump(model))
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = torch.load(tmp_path / "theirs/last.ckpt", weights_only=True)["state_dict"]
    assert equal(again, tensors)
    assert yaml.safe_load((tmp_path / "theirs/model.yaml").read_text())["model"]["params"] == params


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu", "mlp3x_gelu"])
@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_the_originals_layout_with_a_tower_of_its_own(tmp_path, projector, merge):
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    public, clip = tmp_path / "public", tmp_path / "clip"
    CLIPVisionModel(CLIPVisionConfig(**VISION, image_size=28, patch_size=7)).save_pretrained(clip)
    tensors = LlamaForCausalLM(LlamaConfig(**TEXT)).half().state_dict()
    depth = 1 if projector == "linear" else int(projector[3])
    for i in range(depth):
        name = "model.mm_projector." + (f"{2 * i}." if depth > 1 else "")
        tensors[name + "weight"] = torch.randn(48, 48 if i else 32).half()
        tensors[name + "bias"] = torch.randn(48).half()
    told = {**TEXT, "model_type": "llava_llama", "mm_projector_type": projector, "mm_vision_tower": str(clip)}
    told |= {"mm_vision_select_layer": -2, "mm_patch_merge_type": merge, "max_position_embeddings": 256}
    if merge != "flat":
        tensors["model.image_newline"] = torch.randn(48).half()
        told |= {"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[(28, 56), (56, 28)]"}
    public.mkdir()
    (public / "config.json").write_text(json.dumps(told))
    torch.save(tensors, public / "pytorch_model.bin")
    _numbers(80).save_pretrained(public)
    assert recognise(Folder(public)).name == "llava"
    import_checkpoint(public, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(read(tmp_path / "theirs"), tensors)
    assert load_model(tmp_path / "ours").chat("<5> <7>") is not None
