"""VAR's two files: recognised, drawn from by class, and given back bit for bit."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import CheckpointError, DataError
from chiasm.interop import export_checkpoint, find_family, import_checkpoint
from chiasm.model import Model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

SCALES = (1, 2, 3, 4)
NAMES = ("var_d2.pth", "vae_ch32v24z8.pth")


def published(folder, *, shared=False, cosine=True):
    """A tiny VAR in its two files."""
    told = {
        "V": 24, "Cvae": 8, "ch": 32, "patch_nums": SCALES, "num_classes": 10, "depth": 2, "embed_dim": 128,
        "num_heads": 2, "shared_aln": shared, "attn_l2_norm": cosine,
    }  # fmt: skip
    family = find_family("var")
    recipe = load_recipe({"name": "var", "model": family.model(told), "data": {}, "stages": []})
    ours = {key: torch.randn_like(t) if t.is_floating_point() else t for key, t in _model(recipe).items()}
    theirs = family.names(told).to_theirs(ours, "the model")
    cells = sum(side * side for side in SCALES)
    levels = torch.cat([torch.full((side * side,), i) for i, side in enumerate(SCALES)])
    theirs["var.lvl_1L"] = levels[None]
    theirs["var.attn_bias_for_masking"] = torch.zeros(1, 1, cells, cells)
    for block in range(2):
        theirs[f"var.blocks.{block}.attn.zero_k_bias"] = torch.zeros(128)
    theirs["vae.quantize.ema_vocab_hit_SV"] = torch.rand(4, 24)
    folder.mkdir()
    for prefix, name in zip(("var.", "vae."), NAMES, strict=True):
        mine = {key.removeprefix(prefix): t for key, t in theirs.items() if key.startswith(prefix)}
        torch.save(mine, folder / name)
    return folder


def _model(recipe):
    return {
        key: value for key, value in Model(recipe.model).state_dict().items() if not key.endswith("frequency")
    }


@pytest.mark.parametrize(("shared", "cosine"), [(False, True), (True, False)])
def test_two_files_draw_classes_and_come_back_bit_for_bit(tmp_path, shared, cosine):
    source = published(tmp_path / "public", shared=shared, cosine=cosine)
    import_checkpoint(source, tmp_path / "ours")
    model = load_model(tmp_path / "ours").eval()
    spec = model.spec["language"]
    assert (spec["shared"], spec["cosine"], spec["classes"], spec["heads"]) == (shared, cosine, 10, 2)
    one, other = (model.generate("7", seed=seed, guidance=2.0)[0] for seed in (0, 0))
    assert one.size == (64, 64)
    assert one.tobytes() == other.tobytes()
    with pytest.raises(DataError, match="'cat' is no class"):
        model.generate("cat")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    for name in NAMES:
        before, after = (torch.load(folder / name) for folder in (source, tmp_path / "back"))
        assert set(before) == set(after)
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_folder_that_lacks_a_tensor_says_which(tmp_path):
    source = published(tmp_path / "public")
    held = torch.load(source / NAMES[0])
    del held["word_embed.weight"]
    torch.save(held, source / NAMES[0])
    with pytest.raises(CheckpointError, match=r"is not VAR: it lacks 'word_embed\.weight'"):
        import_checkpoint(source, tmp_path / "ours")


def test_classes_are_numbers_of_the_recipe_too():
    made = parts.build(
        "language", {"type": "var", "width": 8, "depth": 1, "heads": 1, "classes": 4}, [], True
    )
    assert made.tokenizer.encode("3") == (3,)
    assert made.tokenizer.begin == 4
    assert made.tokenizer.before_picture == ()
