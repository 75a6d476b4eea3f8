"""Show-o from its public layout: it answers, draws, and goes back bit for bit."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from chiasm.data.documents import document, draw_prompt, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.interop import export_checkpoint, find_family, import_checkpoint
from chiasm.interop.convert import build_model
from chiasm.interop.families.show_o import _published
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.storage.weights import read_tensors
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS, CODES = 40, 64
PHI = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOLD = {
    "phi": PHI | {"qk_layernorm": True},
    "llm_vocab": WORDS,
    "n_special": 10,
    "codebook": CODES,
    "n_vq": 16,
}


@pytest.fixture
def folder(tmp_path):
    """The original's files, of random weights."""
    config = {"_class_name": "Showo", "llm_vocab_size": WORDS, "vocab_size": WORDS + 10 + CODES + 1}
    drawer = {"_class_name": "MAGVITv2", **_published(TOLD)["vq_model"]}
    layout = find_family("show-o")
    read = {**config, "phi": TOLD["phi"], "vq_model": drawer}
    keys = ["vq_model.encoder.conv_in.weight"]
    raw = {"name": "show-o", "model": layout.model(read, keys), "data": {}, "stages": []}
    torch.manual_seed(2)
    model = build_model(load_recipe(raw).model, None)
    ours = {key: torch.randn_like(tensor) * 0.2 for key, tensor in model.state_dict().items()}
    theirs = layout.names(read, keys).to_theirs(ours, "show-o")
    inside = tmp_path / "original" / "magvitv2"
    inside.mkdir(parents=True)
    place = tmp_path / "original"
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (inside / "config.json").write_text(json.dumps(drawer), encoding="utf-8")
    own = {key: t.contiguous() for key, t in theirs.items() if not key.startswith("vq_model.")}
    other = {key.removeprefix("vq_model."): t.contiguous() for key, t in theirs.items() if key not in own}
    save_file(own, place / "model.safetensors")
    save_file(other, inside / "model.safetensors")
    words = {"<|endoftext|>": 0, "<unk>": 1, "USER:": 2, "ASSISTANT:": 3} | {
        f"w{i}": i for i in range(4, WORDS)
    }
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(place)
    return place


def test_it_answers_and_draws_and_goes_back_bit_for_bit(folder, tmp_path):
    import_checkpoint(folder, tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    model.image_head.steps = 3
    picture = Image.new("RGB", (4, 4), "red")
    assert isinstance(model.chat([{"role": "user", "content": [picture, "w5 w6"]}], tokens=3).text, str)
    drawn = model.generate("w5 w6", guidance=3.0, seed=1)[0]
    assert drawn.tobytes() == model.generate("w5 w6", guidance=3.0, seed=1)[0].tobytes()
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    for name in ("model.safetensors", "magvitv2/model.safetensors"):
        before, after = read_tensors(folder / name), read_tensors(tmp_path / "back" / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert json.loads((tmp_path / "back/config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )


def test_prompts_are_the_original_s(folder, tmp_path):
    model = load_model(import_checkpoint(folder, tmp_path / "ours"))
    t2i, mmu, soi, eoi = WORDS + 5, WORDS + 6, WORDS + 1, WORDS + 2
    asked = Sample("s", (Message("user", ("w5 w6",)),))
    prompt = draw_prompt(model.contract, asked)
    assert prompt.ids == [t2i, 0, 5, 6, 0]
    assert without_prompt(model.contract, prompt).ids == [t2i, 0, 0]
    seen = Sample("s", (Message("user", (picture_of_size(4), "w5 w6")),))
    made = document(model.contract, seen, prompt=True)
    assert [id for id, kind in zip(made.ids, made.kinds, strict=True) if kind == 0] == [0, 2, 5, 6, 3]
    assert made.kinds[:19] == [1] * 19  # the picture comes first, its markers in its block
    embedded = model.image_head.embed_read(torch.zeros(1, 4, 4, dtype=torch.long))[0]
    markers = model.language.embed(torch.tensor([mmu, soi, eoi]))
    assert torch.equal(embedded[[0, 1, -1]], markers)


def picture_of_size(size):
    from chiasm.data.files import PictureInMemory

    return PictureInMemory(Image.new("RGB", (size, size), "blue"))


def test_without_its_image_tokenizer_it_is_refused(folder, tmp_path):
    (folder / "magvitv2" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="showlab/magvitv2"):
        import_checkpoint(folder, tmp_path / "ours")


def test_another_tokenizer_is_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | {"llm_vocab_size": WORDS - 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer has \[PAD\] at 40, but the model at 39"):
        import_checkpoint(folder, tmp_path / "ours")


def test_the_form_with_a_clip_projector_is_refused_by_the_name_of_its_mask(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "w_clip_vit": True}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"w_clip_vit is True(.)*create_attention_mask_for_mmu_vit"):
        import_checkpoint(folder, tmp_path / "ours")
