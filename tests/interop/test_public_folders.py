"""Public folders as they are downloaded: recognised by their files, imported, talked to, trained on, given back."""

import json
import sys

import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from chiasm.cli import main
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.storage.weights import read_tensors
from chiasm.views import Size

WORDS = 400  # rows of the table of words; the last ones are the picture's
IMAGE = WORDS - 1
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 7}  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": WORDS, "max_position_embeddings": 512}  # fmt: skip
LLAMA = {**TEXT, "model_type": "llama"}
CLIP, SIGLIP = ({**VISION, "model_type": f"{kind}_vision_model"} for kind in ("clip", "siglip"))
SAM = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 24, "image_size": 64,
       "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "output_channels": 4,
       "model_type": "sam_vision_model"}  # fmt: skip
NORMAL = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}


def llava():
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=CLIP, text_config=LLAMA, image_token_id=IMAGE)
    )


def llava_next():
    points = [[28, 56], [56, 28], [56, 56]]
    config = transformers.LlavaNextConfig(vision_config=CLIP, text_config=LLAMA, image_token_id=IMAGE,
                                          image_grid_pinpoints=points)  # fmt: skip
    return transformers.LlavaNextForConditionalGeneration(config)


def blip2():
    qformer = {k: VISION[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads")}
    opt = {"model_type": "opt", "vocab_size": WORDS, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2,
           "num_attention_heads": 2, "word_embed_proj_dim": 16, "max_position_embeddings": 512}  # fmt: skip
    config = transformers.Blip2Config(
        vision_config=VISION, qformer_config={**qformer, "num_hidden_layers": 2, "encoder_hidden_size": 16},
        text_config=opt, num_query_tokens=3, image_token_id=IMAGE,
    )  # fmt: skip
    return transformers.Blip2ForConditionalGeneration(config)


def fuyu():
    text = {**TEXT, "model_type": "persimmon", "qk_layernorm": True}
    return transformers.FuyuForCausalLM(
        transformers.FuyuConfig(text_config=text, patch_size=8, image_token_id=IMAGE)
    )


def deepseek_vl(hybrid=False):
    parts = {
        "text_config": LLAMA,
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "image_token_id": IMAGE,
    }
    if not hybrid:
        return transformers.DeepseekVLForConditionalGeneration(transformers.DeepseekVLConfig(**parts))
    config = transformers.DeepseekVLHybridConfig(**parts, high_res_vision_config=SAM)
    return transformers.DeepseekVLHybridForConditionalGeneration(config)


# The family, how it is made, visual tokens of a picture of 28 x 28, and what learns.
LAYOUTS = {
    "llava": ("llava-hf", llava, 16),
    "llava_next": ("llava-hf", llava_next, None),
    "blip2": ("blip2-hf", blip2, 3),
    "fuyu": ("fuyu", fuyu, None),
    "deepseek_vl": ("deepseek-vl-hf", deepseek_vl, 16),
    "deepseek_vl_hybrid": ("deepseek-vl-hf", lambda: deepseek_vl(True), 16),
}


def with_words(folder, **preprocessor):
    """Adds a tokenizer and the preprocessor's file."""
    TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300).save(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**NORMAL, **preprocessor}))
    return folder


@pytest.fixture(params=LAYOUTS)
def public(request, tmp_path):
    family, make, tokens = LAYOUTS[request.param]
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "public", max_shard_size="20KB")
    assert (tmp_path / "public/model.safetensors.index.json").is_file()
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if family == "fuyu" else {}
    return with_words(tmp_path / "public", **half), family, model, tokens


def command(capsys, *arguments):
    sys.argv = ["chiasm", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    return said.out


def trained_on(capsys, imported, folder, **model):
    """A run of a few steps that begins with an imported checkpoint."""
    data = {"type": "world", "scenes": 12, "emoji": 6, "grid": 2, "objects": [1, 2], "canvas": 28,
            "tasks": {"what": 1, "where": 1}}  # fmt: skip
    rates = {"connector": 1e-2, "language": 1e-2}
    stage = {"name": "tune", "train": rates, "data": {"world": 1.0}, "steps": 2, "rows": 1, "length": 448}
    start = imported if isinstance(imported, dict) else str(imported)
    recipe = {"name": "on", "start": start, "data": {"world": data}, "stages": [stage]}
    if model:
        recipe["model"] = model
    (folder / "on.yaml").write_text(yaml.safe_dump(recipe))
    command(capsys, "train", folder / "on.yaml", "--out", folder / "run")
    return folder / "run"


@torch.no_grad()
def logits(ours, theirs, tokens):
    """Of both, for words and a picture."""
    words = torch.randint(3, 200, (9,))
    if tokens is None:  # views of the picture's own
        return ours.language.logits(
            read_documents(ours, [case_document(ours, words, [], IMAGE, repeated=True)]).hidden
        ), theirs(input_ids=words[None]).logits
    ids = torch.cat([words[:2], torch.full((tokens,), IMAGE), words[2:]])
    small, large = torch.rand(1, 3, 28, 28), torch.rand(1, 3, 64, 64)
    encoder = ours.encoder
    if ours.encoder.name == "hybrid":
        high, encoder = ours.encoder.encoders
        features = ours.encoder.joined([large, small])
        given = {"high_res_pixel_values": (large - high.mean) / high.deviation}
    else:
        features, given = ours.encoder(small), {}
    given["pixel_values"] = (small - encoder.mean) / encoder.deviation
    side = ours.views.split(Size(28, 28))[0].size
    document = case_document(ours, ids, [CasePicture("0", side, features)], IMAGE, repeated=True)
    return read_documents(ours, [document], encoded=True).logits, theirs(input_ids=ids[None], **given).logits


def test_it_is_recognised_imported_talked_to_trained_on_and_given_back(public, tmp_path, capsys):
    folder, family, model, tokens = public
    assert recognise(Folder(folder)).name == family
    command(capsys, "import", folder, tmp_path / "ours")
    Image.new("RGB", (50, 31), "red").save(tmp_path / "red.png")
    ours = load_model(tmp_path / "ours")
    made, expected = logits(ours, model, tokens)
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=1e-4)
    question = {"role": "user", "content": [Image.open(tmp_path / "red.png"), "Where is the dog?"]}
    said = str(ours.chat([question], tokens=3))
    assert said == str(ours.chat([question], tokens=3))
    command(capsys, "chat", tmp_path / "ours", "-p", tmp_path / "red.png", "-m", "Where is the dog?")

    run = trained_on(capsys, tmp_path / "ours", tmp_path)
    command(capsys, "export", run, tmp_path / "theirs")
    before, after = read_tensors(folder), load_file(tmp_path / "theirs/model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("lm_head" in key or "embed_tokens" in key for key in changed)
    assert not any(key.startswith(("vision_tower", "vision_model", "model.vision_model")) for key in changed)
    again = type(model).from_pretrained(tmp_path / "theirs").eval()
    made, expected = logits(load_model(run), again, tokens)
    torch.testing.assert_close(made, expected, atol=2e-5, rtol=1e-4)


def originals_llava(folder, *, inside):
    """LLaVA-1.5 as its project saves it, with its tower inside or beside it."""
    clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION))
    clip.save_pretrained(folder.parent / "clip")
    tensors = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).state_dict()
    for i in (0, 2):
        tensors[f"model.mm_projector.{i}.weight"] = torch.randn(16, 16)
        tensors[f"model.mm_projector.{i}.bias"] = torch.randn(16)
    if inside:
        tower = load_file(folder.parent / "clip/model.safetensors")
        prefix = "model.vision_tower.vision_tower.vision_model."
        tensors |= {prefix + key.removeprefix("vision_model."): tensor for key, tensor in tower.items()}
    told = {**LLAMA, "model_type": "llava_llama", "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
            "mm_vision_tower": str(folder.parent / "clip"), "image_aspect_ratio": "pad"}  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(told))
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, own in shards.items():
        torch.save({key: tensors[key] for key in own}, folder / shard)
    places = {key: shard for shard, own in shards.items() for key in own}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return with_words(folder), tensors


@pytest.mark.parametrize("inside", [True, False], ids=["with its tower", "with a tower of its own"])
def test_the_originals_llava_is_trained_on_and_given_back(tmp_path, capsys, inside):
    folder, tensors = originals_llava(tmp_path / "public", inside=inside)
    assert recognise(Folder(folder)).name == "llava"
    command(capsys, "import", folder, tmp_path / "ours")
    picture = Image.new("RGB", (9, 31), "red")
    load_model(tmp_path / "ours").chat(
        [{"role": "user", "content": [picture, "Where is the dog?"]}], tokens=3
    )
    run = trained_on(capsys, tmp_path / "ours", tmp_path)
    command(capsys, "export", run, tmp_path / "theirs")
    after = load_file(tmp_path / "theirs/model.safetensors")
    assert after.keys() == tensors.keys()
    same = {key for key in tensors if torch.equal(tensors[key], after[key])}
    assert same == {key for key in tensors if "vision_tower" in key}


def test_a_model_whose_parts_were_changed_is_not_given_back_as_the_original(tmp_path, capsys):
    folder, _ = originals_llava(tmp_path / "public", inside=True)
    command(capsys, "import", folder, tmp_path / "ours")
    run = trained_on(capsys, tmp_path / "ours", tmp_path, connector={"type": "linear"})
    assert not (run / "final/origin").exists()
    assert load_model(run).connector.name == "linear"


def test_a_qformer_and_its_tower_come_to_another_language_model(tmp_path, capsys):
    """How weights of EVA and of a Q-Former come in: with the checkpoint that they are part of."""
    torch.manual_seed(0)
    blip2().save_pretrained(tmp_path / "public")
    command(capsys, "import", with_words(tmp_path / "public"), tmp_path / "ours")
    record = json.loads((tmp_path / "ours/parts.json").read_text())["model"]
    config = {**TEXT, "model_type": "qwen2", "num_key_value_heads": 2}
    start = {"folder": str(tmp_path / "ours"), "slots": ["views", "encoder", "connector"]}
    tokenizer = str(tmp_path / "ours/tokenizer")
    language = {"type": "causal", "config": config, "tokenizer": tokenizer}
    run = trained_on(capsys, start, tmp_path, language=language)
    made, kept = load_model(run), load_model(tmp_path / "ours")
    assert record["connector"]["type"] == made.connector.name == "qformer"
    assert made.language.inner.config.model_type == "qwen2"
    assert all(
        torch.equal(value, kept.encoder.state_dict()[key]) for key, value in made.encoder.state_dict().items()
    )
    assert not (run / "final/origin").exists()


@pytest.mark.parametrize(
    ("layout", "told", "fit", "padding"),
    [
        ("llava", {"do_center_crop": True}, "crop", (127, 127, 127)),
        ("llava", {"do_center_crop": False}, "stretch", (127, 127, 127)),
        ("llava", {"do_center_crop": False, "do_pad": True}, "pad", (102, 127, 153)),
        ("deepseek_vl", {}, None, (102, 127, 153)),
        (
            "deepseek_vl_hybrid",
            {"high_res_image_mean": [0.1, 0.2, 0.3], "high_res_image_std": [0.1, 0.2, 0.3]},
            None,
            (25, 51, 76),
        ),
    ],
)
def test_pictures_are_made_square_as_the_preprocessor_says(tmp_path, layout, told, fit, padding):
    LAYOUTS[layout][1]().save_pretrained(tmp_path / "public")
    with_words(tmp_path / "public", **told)
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    views = load_model(tmp_path / "ours").views
    assert getattr(views, "fit", None) == fit
    assert views.padding == padding
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    one, other = ((tmp_path / each / "config.json").read_text() for each in ("public", "theirs"))
    assert json.loads(one) == json.loads(other)


def test_the_originals_llava_pads_with_its_mean_where_it_is_told_to_pad(tmp_path):
    folder, _ = originals_llava(tmp_path / "public", inside=True)
    (folder / "preprocessor_config.json").unlink()  # as released: CLIP's own says it, or nothing does
    import_checkpoint(folder, tmp_path / "ours")
    views = load_model(tmp_path / "ours").views
    assert (views.fit, views.padding) == ("pad", (122, 116, 104))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "image_aspect_ratio": "square"}))
    assert (
        find_family("llava").model(find_family("llava").read(Folder(folder)).config)["views"]["fit"] == "crop"
    )
