"""Replay of DreamLLM (arXiv 2309.11499): what it reads, both losses, and images by ancestral steps."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.data.sample import Picture
from chiasm.decoders.guidance import Guidance
from chiasm.heads import Ask
from chiasm.inference.session import Session
from chiasm.interop.config import known_value
from chiasm.interop.convert import load
from chiasm.interop.families.dreamllm import CLIP, HEAD, MARKERS, PREFIXES, QUERIES
from chiasm.interop.families.vqgan import unsigned
from chiasm.interop.family import Original, find_family
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep
from chiasm.interop.parity.replay import CasePicture, CaseReader, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.diffusers_shape import unet_shape, vae_shape
from chiasm.interop.shapes.stable_diffusion import NOISE
from chiasm.model import Model
from chiasm.model.images import image_states
from chiasm.nn.losses import Loss
from chiasm.sequence import IGNORE, Document, Kind, pack
from chiasm.views import Size

PATCH, READ, READ_END, DRAW, DRAW_END = 51, 52, 53, 55, 56  # ids of the cases
BEGIN, END = 1, 2
# What the networks of the cases have and neither their tensors nor the config tell.
CLIP_HEADS, UNET_HEADS, UNET_GROUPS, VAE_GROUPS, SCALING = 4, 4, 16, 8, 0.18215
LOSS_WEIGHTS = {"text": 1.0, "diffusion": 10.0}


@replays("dreamllm", "DreamLLMForCausalMLM", without_effect={})
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    config, inputs = case.config, case.inputs
    model = load(find_family("dreamllm"), _original(case)).model
    head, decoder = model.image_head, model.image_decoder
    pixels = unnormalised(model.encoder, inputs["images"])
    images = [CasePicture(f"{i}", Size(*each.shape[-2:]), each[None]) for i, each in enumerate(pixels)]
    documents = [
        _document(model, ids.tolist(), labels.tolist(), images)
        for ids, labels in zip(inputs["input_ids"], inputs["labels"], strict=True)
    ]
    packed, slots = pack([[each] for each in documents])
    batch: Any = Reader(model, unsigned(inputs["images_dm"])).attach(packed, slots)
    embeddings, layout, span = model.embed(batch)
    hidden = model.language(embeddings, layout)
    logits = model.language.logits(hidden)
    learnt = batch.labels != IGNORE
    text = torch.nn.functional.cross_entropy(logits[learnt], batch.labels[learnt])
    read = image_states(head, hidden, batch.written.image)
    if config.get("drop") is not None:
        dropped = inputs["drop_mask"].view(-1, 1, 1)
        read = (1 - dropped) * read + dropped * _without_prompt(model)
    clean = decoder.denoising.latents(span.targets)
    loss: Loss = decoder.denoising.loss(
        decoder.condition(head.alphabet.output(head.bridged(read))),
        clean,
        inputs["noise"],
        inputs["timesteps"],
        decoder.min_snr,
    )
    drawn = {
        "prompt_embeds": _drawn(model, inputs["prompt_ids"], inputs["prompt_mask"]),
        "negative_embeds": _drawn(model, inputs["neg_ids"], torch.ones_like(inputs["neg_ids"])),
    }
    condition, without = (
        decoder.condition(head.alphabet.output(head.bridged(each))) for each in drawn.values()
    )
    words = model.language.embed(torch.tensor([[DRAW, DRAW_END]]))
    return drawn | {
        "loss": LOSS_WEIGHTS["text"] * text + LOSS_WEIGHTS["diffusion"] * loss.mean,
        "lm_loss": text,
        "vm_loss": loss.mean,
        "logits": logits,
        "hidden": hidden,
        "clip_embeds": model.connector(model.encoder(pixels)),
        "latents_final": decoder.denoising.sample(
            condition,
            without,
            CaseNoise(inputs["step_noise"]),
            steps=config["steps"],
            guidance=Guidance(config["gs"]),
            noise=inputs["latents"],
        ),
        "dream_queries": torch.cat([words[:, :1], head.embed(1), words[:, 1:]], 1),
    }


class Reader(CaseReader):
    """Gives the decoder a case's own pixels, one image after another."""

    def __init__(self, model: Model, pixels: Float[Tensor, "n 3 h w"]):
        super().__init__(model.contract)
        self.pixels = list(pixels)

    def target(self, picture: Picture) -> Tensor:
        return self.pixels.pop(0)


class CaseNoise:
    """The noise of a case's steps, in their order, as a generation asks for it."""

    def __init__(self, steps: Float[Tensor, "s n c h w"]):
        self.steps = iter(steps)

    def normal(self, *shape: int) -> Float[Tensor, "n c h w"]:
        return next(self.steps)


def _document(model: Model, ids: list[int], labels: list[int], images: list[CasePicture]) -> Document:
    """A row of a case: images are taken from the front of `images`, and written ones follow their marker."""
    document, position = Document("a row of the case"), 0
    span = model.contract.span
    assert span is not None
    while position < len(ids):
        marker = ids[position]
        document.add_text([marker], learn=labels[position] != IGNORE)
        position += 1
        if marker == READ:
            image = images.pop(0)
            length = model.contract.read_tokens(image.size, f"image {image.key}")
            document.add_picture(image, Kind.READ, PATCH, [True] * length, [True] * length)
            position += length
        elif marker == DRAW:
            image = CasePicture("written", Size(1, 1), torch.zeros(0))
            document.add_picture(image, Kind.WRITTEN, PATCH, span.opens, span.exposed, span.coordinates)
            position += span.length
    return document.check(model.contract.context)


def _without_prompt(model: Model) -> Float[Tensor, "1 k d"]:
    """What the original trains to lead away from: patches' placeholders in the place of the queries."""
    assert model.contract.span is not None
    count = model.contract.span.length
    document = Document("without a prompt")
    document.add_text([BEGIN, DRAW, *[PATCH] * count, DRAW_END, END], learn=False)
    batch, _ = pack([[document]])
    return model.language(model.language.embed(batch.ids), batch.layout)[:, 2 : 2 + count]


def _drawn(model: Model, prompts: Int[Tensor, "n t"], masks: Int[Tensor, "n t"]) -> Float[Tensor, "n k d"]:
    """The hidden states of the queries behind each prompt."""
    documents = []
    for ids, mask in zip(prompts, masks, strict=True):
        document = Document("a prompt of the case")
        document.add_text([*ids[mask.bool()].tolist(), DRAW], learn=False)
        documents.append(document)
    head: Any = model.image_head
    return DrawStep(Session(model, documents))(Ask(head.embed(len(documents))))


def _original(case: Case) -> Original:
    """The case as a published folder would have it."""
    config, tensors = case.config, case.tensors
    of_clip, of_head = _below(case, PREFIXES[CLIP]), _below(case, PREFIXES[HEAD])
    unet = {key.removeprefix("unet."): tensor for key, tensor in of_head.items() if key.startswith("unet.")}
    vae = {key.removeprefix("vae."): tensor for key, tensor in of_head.items() if key.startswith("vae.")}
    (kind, depth), (head_kind, head_depth) = config["cproj"], config["dproj"]
    plugins = {
        CLIP: {"projector_type": kind, "projector_depth": depth, "select_layer": -2},
        QUERIES: {"num_dream_queries": config["nq"]},
        HEAD: {
            "projector_type": head_kind,
            "projector_depth": head_depth,
            "drop_prob": config.get("drop"),
            "snr_gamma": config.get("snr_gamma"),
        },
    }
    dream = {
        "model_type": "dreamllm",
        "vocab_size": len(tensors["model.embed_tokens.weight"]),
        "hidden_size": config["hidden"],
        "intermediate_size": config["inter"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "plugins_init_kwargs": plugins,
    }
    networks = unet_shape(unet, heads=UNET_HEADS, groups=UNET_GROUPS)
    known_value("cross", config["cross"], networks["cross_attention_dim"])
    networks["sample_size"] = case.inputs["latents"].shape[-1]
    published = {
        "config": dream,
        "markers": dict(MARKERS),
        "clip": _clip(of_clip, config["clip_dim"], case.inputs["images"].shape[-1]),
        "unet": networks,
        "vae": vae_shape(vae, groups=VAE_GROUPS, scaling=SCALING),
        "scheduler": NOISE,
    }
    return Original(published, tensors)


def _clip(tensors: dict[str, Tensor], width: int, size: int) -> dict[str, Any]:
    """The tower's config, by the shapes of its tensors where the case's does not tell."""
    tower = "clip_vision_model.vision_model."
    layers = {key.split(".")[4] for key in tensors if key.startswith(tower + "encoder.layers.")}
    return {
        "hidden_size": width,
        "intermediate_size": tensors[tower + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": CLIP_HEADS,
        "patch_size": tensors[tower + "embeddings.patch_embedding.weight"].shape[-1],
        "image_size": size,
    }


def _below(case: Case, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in case.tensors.items() if key.startswith(prefix)}
