"""A folder of diffusers becomes an image decoder that makes the pictures of diffusers' own pipelines."""

import json

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.errors import ChiasmError
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.model.checkpoint import load_model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from chiasm.storage.weights import read_tensors
from chiasm.tokenizers.vae import EXAMPLE_VAE

VAE = {**EXAMPLE_VAE, "block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2,
       "up_block_types": ["UpDecoderBlock2D"] * 2, "scaling_factor": 0.5}  # fmt: skip
UNET = {**EXAMPLE_UNET, "cross_attention_dim": 12, "sample_size": 8}
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 10 + 6 * 4,
}
SIZE = 16


@pytest.fixture
def folder(tmp_path):
    """A function that writes a small folder of diffusers."""
    import diffusers

    def write(scheduler="PNDMScheduler", unet=(), vae=(), of_scheduler=()):
        torch.manual_seed(0)
        place = tmp_path / "original"
        diffusers.UNet2DConditionModel(**UNET, **dict(unet)).save_pretrained(place / "unet")
        diffusers.AutoencoderKL(**VAE, **dict(vae)).save_pretrained(place / "vae")
        options = {"steps_offset": 1, "beta_start": 0.00085, "beta_end": 0.012, **dict(of_scheduler)}
        if scheduler == "PNDMScheduler":
            options["skip_prk_steps"] = True
        getattr(diffusers, scheduler)(**options).save_pretrained(place / "scheduler")
        index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
        (place / "model_index.json").write_text(json.dumps(index))
        return place

    return write


def imported(place, **options):
    """The decoder of an imported folder, read back, with other options."""
    model = load_model(import_checkpoint(place, place.parent / "ours"))
    spec = {**model.spec["image_decoder"], "steps": 5, **options}
    decoder = parts.build("image_decoder", spec, DecoderContext(None)).eval()
    decoder.load_state_dict(model.image_decoder.state_dict())
    return decoder


def embeddings(seed, count=5):
    return torch.randn(1, count, 12, generator=torch.Generator().manual_seed(seed))


def theirs(pipeline, place, **arguments):
    import diffusers

    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    built = {name: kind.from_pretrained(place / name) for name, kind in kinds.items()}
    config = json.loads((place / "scheduler/scheduler_config.json").read_text())
    built["scheduler"] = getattr(diffusers, config["_class_name"]).from_pretrained(place / "scheduler")
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = getattr(diffusers, pipeline)(**built, **absent, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    noise = Generators([7]).for_pixels().normal(4, SIZE // 2, SIZE // 2)
    arguments |= {"latents": noise, "num_inference_steps": 5, "output_type": "pt"}
    return pipe(prompt_embeds=embeddings(1), negative_prompt_embeds=embeddings(2), **arguments).images


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of a scheduler's options that the pipeline sets itself
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_its_images_are_those_of_the_pipeline(folder, scheduler, rescale):
    place = folder(scheduler)
    decoder = imported(place, guidance=4.0, guidance_rescale=rescale)
    ours = decoder.decode(embeddings(1)[:, None], negative=embeddings(2)[:, None], generators=Generators([7]))
    expected = theirs("StableDiffusionPipeline", place, guidance_scale=4.0, guidance_rescale=rescale)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_its_edits_are_those_of_the_pipeline(folder):
    """Three-way guidance: of InstructPix2Pix."""
    place, source = folder("EulerDiscreteScheduler", unet={"in_channels": 8}), torch.rand(1, 3, SIZE, SIZE)
    decoder = imported(place, guidance=7.5, source_guidance=1.5)
    assert decoder.edits
    ours = decoder.decode(
        embeddings(1)[:, None], negative=embeddings(2)[:, None], source=source, generators=Generators([7])
    )
    expected = theirs(
        "StableDiffusionInstructPix2PixPipeline",
        place,
        image=source,
        guidance_scale=7.5,
        image_guidance_scale=1.5,
    )
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_it_comes_back_bit_for_bit(folder, tmp_path):
    place = folder("EulerDiscreteScheduler")
    again = export_checkpoint(import_checkpoint(place, tmp_path / "ours"), tmp_path / "again")
    for name in ("unet", "vae"):
        one, other = (read_tensors(each / name) for each in (place, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert json.loads((place / name / "config.json").read_text()) == json.loads(
            (again / name / "config.json").read_text()
        )


def test_a_network_that_reads_a_pooled_vector_waits_for_its_conditioner(folder):
    decoder = imported(folder(unet=XL))
    with pytest.raises(ChiasmError, match="has no conditioner: its recipe must name one"):
        decoder.decode(embeddings(1)[:, None])


def test_a_recipe_starts_from_it(folder, tmp_path):
    ours = import_checkpoint(folder(), tmp_path / "ours")
    raw = {
        "name": "another",
        "start": {"folder": str(ours), "slots": ["image_decoder"]},
        "model": {"image_decoder": {"steps": 9}},
        "data": {},
        "stages": [],
    }
    decoder = load_recipe(raw).model["image_decoder"]
    assert decoder["steps"] == 9
    assert decoder["denoiser"]["config"]["cross_attention_dim"] == 12
    assert decoder["scheduler"]["type"] == "pndm"


def changed(place, file, **values):
    path = place / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "LCMScheduler"},
            "is of a LCMScheduler; known",
        ),
        ("scheduler/scheduler_config.json", {"beta_middle": 1}, "has the option 'beta_middle'"),
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "is of a UNet3DConditionModel"),
        ("unet/config.json", {"brand_new": 1}, "diffusers refuses the configuration: .*brand_new"),
        ("unet/config.json", {"in_channels": 9}, "in_channels 9 and out_channels 4"),
        ("unet/config.json", {"cross_attention_dim": 16}, "the config contradicts"),
        ("model_index.json", {"controlnet": ["diffusers", "ControlNetModel"]}, "component 'controlnet'"),
    ],
)
def test_what_would_change_its_images_is_refused_by_name(folder, file, values, words):
    place = folder()
    changed(place, file, **values)
    with pytest.raises(ChiasmError, match=words):
        import_checkpoint(place, place.parent / "ours")


def test_options_of_other_schedulers_have_no_effect_as_in_diffusers(folder):
    place = folder("EulerDiscreteScheduler")
    changed(place, "scheduler/scheduler_config.json", skip_prk_steps=True, clip_sample=False)
    assert "skip_prk_steps" not in imported(place).spec["scheduler"]["config"]


def test_a_folder_without_its_autoencoder_is_refused(folder):
    place = folder()
    (place / "vae/config.json").unlink()
    with pytest.raises(ChiasmError, match=r"has no vae/config.json, without which nothing can be decoded"):
        import_checkpoint(place, place.parent / "ours")
