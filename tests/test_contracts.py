"""What every registered part must keep, from the day it is registered: one tiny model a part."""

from copy import deepcopy

import pytest
import torch

from chiasm import parts
from chiasm.checkpoint import load_model, save_model
from chiasm.data.corpus import corpus
from chiasm.data.documents import PictureReader, document, draw_prompt, prompt_of
from chiasm.errors import RecipeError
from chiasm.generation import Session, draw
from chiasm.generators import Generators
from chiasm.heads import Sampling
from chiasm.losses import objective
from chiasm.model import Model
from chiasm.recipe import Stage, load_recipe
from chiasm.sequence import pack
from chiasm.training.distribution import Ranks
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import DocumentsAim, TokenizerAim, TrainStep
from tiny_recipe import TINY

# Options for the parts whose defaults do not fit a tiny model; every other part is tried with its defaults.
SMALL_VQGAN = {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1}
SMALL_VQGAN |= {"latent_width": 8, "codebook_size": 16}
SMALL_LAVIT = {"encoder": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32},
               "size": 32, "codebook_size": 16, "code_width": 8, "depth": 1, "heads": 2, "hidden": 16,
               "decoder_depth": 1}  # fmt: skip
SMALL_VAE = {"block_out_channels": [8, 8, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 4,
             "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4, "layers_per_block": 1}  # fmt: skip
SMALL_UNET = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2,
              "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
              "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}  # fmt: skip
SMALL_SDXL = {**SMALL_UNET, "cross_attention_dim": 2048, "addition_embed_type": "text_time",
              "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 1328}  # fmt: skip
SMALL_DRAWING = {"size": 32, "steps": 2, "depth": 1, "heads": 2, "hidden": 16, "vae": SMALL_VAE}
EXAMPLES = {
    ("views", "whole"): {"size": 32},
    ("views", "letterbox"): {"size": 32},
    ("views", "framed"): {"size": 32},
    ("views", "any_resolution"): {"size": 16, "resolutions": [[32, 32]]},
    ("views", "hd_tiles"): {"size": 16, "tiles": 2},
    ("views", "native"): {"patch": 8},
    ("views", "bounded"): {"patch": 8, "longest": 32, "shortest": 8},
    ("encoder", "vit"): {"patch_size": 8, "width": 16, "depth": 2, "heads": 2, "size": 32},
    ("encoder", "patches"): {"patch_size": 8},
    ("encoder", "efficientnet_lite"): {"checkpoint": None, "strides": [8, 16]},
    ("encoder", "transformers"): {
        "config": {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "image_size": 32,
                   "patch_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
    ("encoder", "siglip_native"): {
        "config": {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32,
                   "image_size": 32, "patch_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
    ("encoder", "siglip_naflex"): {
        "config": {"model_type": "siglip2_vision_model", "hidden_size": 16, "intermediate_size": 32,
                   "num_patches": 16, "patch_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
    ("encoder", "eva"): {"size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "hidden": 24,
                         "rotary": 4},
    ("encoder", "sam"): {"size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "hidden": 32,
                         "window": 3, "global_layers": [1], "neck": 8, "downsample": [12], "resize": 6,
                         "early": True},
    ("encoder", "hybrid"): {
        "encoders": [{"type": "patches", "patch_size": 8}, {"type": "patches", "patch_size": 4}],
        "sizes": [None, 16],
    },
    ("connector", "qformer"): {"queries": 3, "width": 8, "depth": 2, "heads": 2, "hidden": 16},
    ("connector", "embedding"): {"grid": [4, 4]},
    ("connector", "lavit"): {"depth": 1, "heads": 4, "hidden": 16},
    ("language", "causal"): TINY["model"]["language"],
    ("language", "var"): {"width": 32, "depth": 2, "heads": 4, "vocabulary": 400},
    ("language", "beit3"): {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256, "vocabulary": 400},
    ("language", "llamagen"): {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256,
                               "vocabulary": 400},
    ("language", "llamagen_captions"): {
        "width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256, "vocabulary": 400,
        "config": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
    },
    ("routing", "lora"): {"rank": 2},
    ("routing", "partial_lora"): {"rank": 2},
    ("routing", "moe"): {"experts": 3},
    ("image_tokenizer", "vq"): TINY["model"]["image_tokenizer"],
    ("image_tokenizer", "vqgan"): SMALL_VQGAN,
    ("image_tokenizer", "vqgan_gumbel"): SMALL_VQGAN,
    ("image_tokenizer", "vqgan_cosine"): SMALL_VQGAN,
    ("image_tokenizer", "vqgan_unit"): SMALL_VQGAN,
    ("image_tokenizer", "vqgan_video"): {"size": 32, "width": 32, "multipliers": [1, 1, 1], "depth": 1,
                                         "attention_levels": [2], "codebook_size": 16},
    ("image_tokenizer", "vqgan_bits"): {"size": 32, "width": 32, "multipliers": [1, 1, 1], "bits": 4,
                                        "depths": [1, 1, 1],
                                        "decoder_multipliers": [1, 1, 2], "decoder_depths": [1, 1, 1]},
    ("image_tokenizer", "multi_scale"): {"scales": [1, 2, 4], "width": 32, "multipliers": [1, 1, 1, 1], "depth": 1,
                                         "convolutions": 0,
                                         "code_width": 8, "codebook_size": 16},
    ("image_tokenizer", "lavit"): {**SMALL_LAVIT, "painter": 16},
    ("image_tokenizer", "lfq"): {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "bits": 5},
    ("image_tokenizer", "lfq_video"): {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "bits": 5},
    ("image_tokenizer", "vqgan_fsq"): {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1,
                                       "latent_width": 8, "levels": [4, 3]},
    ("image_tokenizer", "vqgan_lfq"): {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1,
                                       "latent_width": 8, "bits": 4},
    ("image_tokenizer", "vqgan_muse"): SMALL_VQGAN,
    ("image_tokenizer", "vqvae2"): {"size": 32, "width": 16, "depth": 1, "residual_width": 8, "code_width": 8,
                                    "codebook_size": 16},
    ("image_head", "factorised"): {"bits": [1, 3], "depth": 1, "heads": 4, "hidden": 48},
    ("image_decoder", "lavit_diffusion"): {**SMALL_DRAWING, "unet": SMALL_SDXL},
    ("image_decoder", "lavit_diffusion_sd15"): {
        **SMALL_DRAWING, "empty_tokens": 5, "unet": {**SMALL_UNET, "cross_attention_dim": 24},
    },
}  # fmt: skip
# The other slots of the tiny model that a part needs to be so.
BESIDE = {
    ("image_head", "next_scale"): {
        "image_tokenizer": {"type": "multi_scale", **EXAMPLES["image_tokenizer", "multi_scale"]}
    },
    ("image_decoder", "lavit_diffusion"): {"image_tokenizer": {"type": "lavit", **SMALL_LAVIT}},
    ("image_decoder", "lavit_diffusion_sd15"): {"image_tokenizer": {"type": "lavit", **SMALL_LAVIT}},
}
EVERY = [(slot, name) for slot in parts.SLOTS if slot not in parts.OUTSIDE for name in parts.names(slot)]


@pytest.fixture(params=EVERY, ids=lambda each: "-".join(each))
def part(request):
    return request.param


@pytest.fixture
def made(part):
    """A recipe with the part in its slot, its model, some documents and their samples."""
    slot, name = part
    raw = deepcopy(TINY)
    raw["model"] |= BESIDE.get(part, {})
    raw["model"][slot] = {**EXAMPLES.get(part, {}), "type": name}
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe))
    world = parts.build("data", recipe.data["world"])
    samples = [sample for i in range(3) for sample in world[i]]
    return recipe, model, samples


def losses(model, documents):
    batch, slots = pack([documents])
    return model.losses(PictureReader(model.contract).attach(batch, slots))


def test_promised_tokens_are_made_and_every_loss_is_finite(made):
    _, model, samples = made
    found = losses(model, [document(model.contract, sample) for sample in samples])
    assert set(found) >= {"image", *(["text"] if model.language.says else [])}
    assert all(torch.isfinite(loss.sum) and loss.count > 0 for loss in found.values())
    span = model.contract.span
    if span is not None:
        assert [place for place, _, _ in span.coordinates] == list(range(span.length))


def test_all_that_learns_gets_a_gradient_and_nothing_frozen_does(part, made):
    _, model, samples = made
    slot = part[0]
    if slot == "image_tokenizer":
        model.train_only([slot])
        pictures = [
            PictureReader(model.contract).target(item)
            for s in samples for m in s.messages for item in m.content if not isinstance(item, str)
        ]  # fmt: skip
        objective(model.image_tokenizer.losses(torch.stack(pictures))).backward()
    else:
        # What decodes learns from no document.
        part_learns = slot not in ("views", "image_decoder") and any(
            True for _ in getattr(model, slot).parameters()
        )
        model.train_only([slot if part_learns else "connector"])
        objective(losses(model, [document(model.contract, sample) for sample in samples])).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, f"{name} is frozen but got a gradient"
        else:
            assert parameter.grad is not None, f"{name} learns but got no gradient"


def test_no_document_sees_another(made):
    _, model, samples = made
    documents = [document(model.contract, sample) for sample in samples[:4]]
    batch, _ = pack([documents])
    embeddings = torch.randn(*batch.ids.shape, model.language.width, requires_grad=True)
    hidden = model.language(embeddings, batch.layout)
    hidden[0, batch.documents[0] == 1].sum().backward()
    assert embeddings.grad[0, batch.documents[0] != 1].abs().sum() == 0
    assert embeddings.grad[0, batch.documents[0] == 1].abs().sum() > 0


def test_packed_loss_is_the_sum_of_the_unpacked(made):
    _, model, samples = made
    model.eval()
    documents = [document(model.contract, sample) for sample in samples]
    with torch.no_grad():
        packed = losses(model, documents)
        alone = [losses(model, [each]) for each in documents]
    for name, loss in packed.items():
        total = sum(each[name].sum for each in alone if name in each)
        torch.testing.assert_close(loss.sum, total, rtol=1e-4, atol=1e-3)


def stepped(model, stage, micro_batches, monkeypatch):
    """Gradients and losses of one step of a copy of the model; what is drawn is the same for every sample."""
    model = deepcopy(model)
    model.train_only(stage.train)
    aim = TokenizerAim(model) if "image_tokenizer" in stage.train else DocumentsAim(model)
    step = TrainStep(aim, build_optimiser(model, stage), stage, Ranks(), torch.device("cpu"))
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "exponential_", lambda self, *_, **__: self.fill_(1.0))
        patched.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
        torch.manual_seed(0)
        outcome = step(micro_batches)
    return outcome, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same_step(one, other):
    assert one[0].losses == pytest.approx(other[0].losses, rel=1e-4, abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-3, atol=1e-5 * one[0].norm, msg=name)


def stage_of(part, model, **options):
    """A stage that trains the part, or where it has nothing to learn from documents the connector."""
    learns = part[0] not in ("views", "image_decoder") and any(
        True for _ in getattr(model, part[0]).parameters()
    )
    slot = part[0] if learns else "connector"
    options = {"steps": 1, "rows": 1, "precision": "fp32", "clip": 1e9} | options
    return Stage(name="learn", train={slot: 1e-3}, data={"world": 1.0}, **options)


def batch_of(model, rows):
    batch, slots = pack(rows)
    return PictureReader(model.contract).attach(batch, slots)


# What a step may not be shared out for: something in it is taken over a whole batch.
INDIVISIBLE = {
    ("routing", "moe"): "keeps the use of its experts alike",
    ("image_tokenizer", "vqgan_video"): "BatchNorm3d",
    **{("image_tokenizer", name): "entropy of the codes' mean use"
       for name in ("lfq", "lfq_video", "vqgan_lfq", "vqgan_bits")},
}  # fmt: skip


def test_a_step_over_batches_of_one_is_a_step_over_one_batch_of_all(part, made, monkeypatch):
    """In training mode; or it is refused, by the name of what is no sum over samples."""
    _, model, samples = made
    if part[0] == "image_tokenizer":
        pictures = [
            PictureReader(model.contract).target(item)
            for s in samples for m in s.messages for item in m.content if not isinstance(item, str)
        ]  # fmt: skip
        whole = [torch.stack(pictures[:4])]
        apart = [picture[None] for picture in pictures[:4]]
    else:
        documents = [document(model.contract, sample) for sample in samples[:6]]
        whole = [batch_of(model, [[each] for each in documents])]
        apart = [batch_of(model, [[each]]) for each in documents]
    stage = stage_of(part, model, accumulate=len(apart))
    if part in INDIVISIBLE:
        with pytest.raises(
            RecipeError, match=f"accumulates over {len(apart)} batches, but .*{INDIVISIBLE[part]}"
        ):
            stepped(model, stage, apart, monkeypatch)
        return
    together = stepped(model, stage_of(part, model), whole, monkeypatch)
    assert_same_step(together, stepped(model, stage, apart, monkeypatch))


def test_packed_is_unpacked_in_training_too(part, made, monkeypatch):
    _, model, samples = made
    if part[0] == "image_tokenizer":
        pytest.skip("it learns from images, which are not packed")
    documents = [document(model.contract, sample) for sample in samples[:6]]
    stage = stage_of(part, model)
    packed = stepped(model, stage, [batch_of(model, [documents])], monkeypatch)
    assert_same_step(packed, stepped(model, stage, [batch_of(model, [[d] for d in documents])], monkeypatch))


def test_saved_and_loaded_it_is_the_same_bit_for_bit(made, tmp_path):
    recipe, model, samples = made
    model.eval()
    save_model(model, recipe, tmp_path / "saved")
    again = load_model(tmp_path / "saved").eval()
    assert set(model.state_dict()) == set(again.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    documents = [document(model.contract, sample) for sample in samples]
    with torch.no_grad():
        for name, loss in losses(model, documents).items():
            assert torch.equal(loss.sum, losses(again, documents)[name].sum)


def test_the_cache_equals_a_full_pass(made):
    _, model, samples = made
    if not model.language.says:
        pytest.skip("it reads all of a text at once and says nothing")
    model.eval()
    asked = document(
        model.contract, prompt_of(next(s for s in samples if s.truth["task"] == "what")), prompt=True
    )
    more = [5, 9, 7]
    with torch.no_grad():
        session = Session(model, [asked])
        stepped = [session.last] + [session.step_text(torch.tensor([id])) for id in more]
        asked.add_text(more, learn=False)
        full = Session(model, [asked])
    torch.testing.assert_close(stepped[-1], full.last, atol=1e-5, rtol=1e-4)


def test_a_picture_of_a_batch_is_the_one_that_its_prompt_and_seed_give_alone(made):
    _, model, samples = made
    model.eval()
    prompts = [draw_prompt(model.contract, prompt_of(s)) for s in samples if s.truth["task"] == "draw"][:2]
    sampling = Sampling(guidance=1.5)
    codes = draw(model, prompts, sampling, generators=Generators(range(len(prompts))))
    alone = draw(model, prompts[-1:], sampling, generators=Generators([len(prompts) - 1]))
    assert torch.equal(codes[-1:], alone)
    pixels = model.image_decoder.decode(codes)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_every_option_is_documented(part):
    for option in parts.options(parts.lookup(*part)).values():
        assert option.help, f"{'.'.join(part)}.{option.name} has no line under Args: in its docstring"
