"""JanusFlow in the original's layout (arXiv 2411.07975), with the autoencoder that it decodes with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm.data.documents import without_prompt
from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY, DrawingState, finish
from chiasm.inference.session import Session
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.families.deepseek_vl import TEMPLATE
from chiasm.interop.families.janus import GREY, PADDING
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import DrawStep, forced
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.autoencoder_kl import autoencoder_rules
from chiasm.interop.shapes.diffusers_shape import vae_shape
from chiasm.interop.shapes.timm_siglip import siglip, siglip_rules
from chiasm.interop.shapes.towers import causal_config, normalisation, with_padding
from chiasm.interop.shapes.u_vit import flow_head, flow_rules
from chiasm.nn.generators import Generators
from chiasm.storage.folders import write_json, write_tensors
from chiasm.views import Size

IMAGE = -1  # the id at each place of an image in the case, and at the marker before it
VAE = "vae/"
SIZE = 384  # pixels of an image that is drawn, which no file says
SIZE_KEY = "drawn_size"  # where a config of ours says otherwise
END = "<end_of_image>"
_DRAW = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}User: {{ message['content'] }}\n\n"
    "{% elif message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
# What the autoencoder of a case has and its tensors do not tell.
GROUPS, SCALING = 8, 0.13025


class JanusFlow(Family, name="janusflow"):
    """deepseek-ai/JanusFlow-1.3B, with stabilityai/sdxl-vae in its `vae/`: SigLIP to see, a flow to draw."""

    looks_for = "config.json with model_type multi_modality and vision_gen_enc_config"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "*.image_size": "the tower's params are used where a structure has one too",
        "*.cls": "one class is known at each place",
        "*.ckpt_path": "where weights once were",
        "*.dropout": "in training only",
        "*.elementwise_affine": "the norms are scaled whatever it says",
        "vision_gen_enc_config.params.hidden_size": "a time's token is as wide as any, or the tensors do not fit",
        "vision_gen_dec_config.params.hidden_size": "a time's token is as wide as any, or the tensors do not fit",
    }

    def recognises(self, folder: Folder) -> bool:
        return (
            folder.config.get("model_type") == "multi_modality" and "vision_gen_enc_config" in folder.config
        )

    def read(self, folder: Folder) -> Original:
        place = folder.path / VAE
        if not (place / "config.json").is_file():
            raise CheckpointError(
                f"{folder.path} has no autoencoder of pixels, without which JanusFlow can neither learn to draw "
                f"nor show what it draws; put stabilityai/sdxl-vae into {place}"
            )
        original = with_padding(folder, PADDING)
        original.config["vae"] = folder.json(VAE + "config.json")
        original.tensors |= {VAE + key: tensor for key, tensor in folder.read(place).items()}
        return original

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        seen = config["vision_und_enc_config"]["params"]
        language = causal_config(config["language_config"], "llama")
        return {
            "views": {
                "type": "headed",
                "size": seen["image_size"],
                "padding": tuple(config.get(PADDING, GREY)),
            },
            "encoder": siglip(seen, config),
            "connector": {"type": "linear"},
            "language": {
                **language,
                "draw_marker": None,
                "empty_prompt": "hidden",
                "read_end": END,
            },
            "image_tokenizer": {
                "type": "vae",
                "size": config.get(SIZE_KEY, SIZE),
                "config": config["vae"],
            },
            "heads": {"image": flow_head(config)},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            *siglip_rules(self.model(config)["encoder"], "vision_und_enc_model.vision_tower."),
            Rule("vision_und_enc_aligner.{p}", "connector.layer.{p}"),
            Rule("beg_of_und_embed", "views.markers"),
            *flow_rules(config, "heads.image."),
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
            *autoencoder_rules(keys, VAE, "image_tokenizer.inner."),
        )

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return {"default": TEMPLATE, "draw": _DRAW}

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        usual = {f"encoder.{name}": torch.full((3, 1, 1), 0.5) for name in ("mean", "deviation")}
        return usual | normalisation(folder)

    def write(self, original: Original, folder: Path) -> None:
        (folder / VAE).mkdir(exist_ok=True)  # its other files may stand there
        config = dict(original.without(PADDING).config)
        write_json(folder / VAE / "config.json", config.pop("vae"))
        write_json(folder / "config.json", config)
        of_vae = {name for name in original.tensors if name.startswith(VAE)}
        write_tensors(
            folder / VAE / "diffusion_pytorch_model.safetensors",
            {name.removeprefix(VAE): original.tensors[name] for name in of_vae},
        )
        rest = {name: tensor for name, tensor in original.tensors.items() if name not in of_vae}
        write_tensors(folder / "model.safetensors", rest)


def _published(case: Case) -> dict[str, Any]:
    """A case's config as config.json has it; what it does not say follows from shapes."""
    config, tensors = case.config, case.tensors
    latents = tensors["vl_gpt.vision_gen_enc_model.in_conv.weight"]
    doublings = {
        key.split(".")[3] for key in tensors if key.startswith("vl_gpt.vision_gen_dec_model.out_convs.")
    }
    stride = 2 ** len(doublings)
    vae = vae_shape(
        {key.removeprefix("vae."): each for key, each in tensors.items() if key.startswith("vae.")},
        groups=GROUPS,
        scaling=SCALING,
    )
    known_value("vae", list(config["vae"]), vae["block_out_channels"])
    common = {"block_out_channels": [config["uvit_ch"]], "layers_in_middle": config["layers"]}
    return {
        "vision_und_enc_config": {
            "params": {"model_name": "case", "image_size": config["siglip"]["image_size"], "select_layer": -1}
        },
        "case": config["siglip"],
        "vision_gen_enc_config": {
            "params": {
                **common,
                "input_channels": latents.shape[1],
                "kernel_size": latents.shape[2],
                "stride": stride,
                "padding": -(-(latents.shape[2] - stride) // 2),
            }
        },
        "vision_gen_dec_config": {
            "params": {
                **common,
                "in_channels": len(tensors["vl_gpt.vision_gen_dec_aligner.bias"]),
                "out_channels": latents.shape[1],
                "upsamples": len(doublings),
            }
        },
        "language_config": config["llm"],
        "vae": vae,
        SIZE_KEY: config["latent"] * 2 ** (len(vae["block_out_channels"]) - 1),
    }


@replays("janusflow", "janusflow MultiModalityCausalLM", without_effect={"n_prompt": "an input says it too"})
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Reads an image, draws with guidance from the case's noise, learns a velocity."""
    layout, config, inputs = find_family("janusflow"), case.config, case.inputs
    tensors = {
        VAE + key.removeprefix("vae.") if key.startswith("vae.") else key.removeprefix("vl_gpt."): tensor
        for key, tensor in case.tensors.items()
    }
    original = Original(_published(case), tensors)
    model = load(layout, original, constants=layout.constants(Folder(case.path))).model
    head, vae = model.image_head, model.image_tokenizer
    pixels = unnormalised(model.encoder, inputs["und_pixels"].flatten(0, 1))
    images = [CasePicture(f"{i}", Size(*each.shape[-2:]), each[None]) for i, each in enumerate(pixels)]
    read = read_documents(
        model, [case_document(model, row, images, IMAGE, repeated=True) for row in inputs["und_ids"]]
    )

    model.language.tokenizer.inner.pad_token = f"<{config['pad_id']}>"
    asked = case_document(model, inputs["prompt_ids"][:-1], [], IMAGE, repeated=False)
    prompts = [asked] * config["n_img"]
    documents = prompts + [without_prompt(model.contract, each) for each in prompts]
    noise, sampling = cells(inputs["noise"]), replace(GREEDY, guidance=config["cfg"])
    head.steps = config["steps"]
    step = DrawStep(Session(model, documents))
    first = finish(head.predict(noise, 0.0, sampling), step)
    progress = DrawingState(Generators([]))
    progress.note(noise, 0)
    latents = finish(head.write(step.start, sampling, progress=progress), DrawStep(Session(model, documents)))

    span = head.between(cells(inputs["data_latents"]), cells(inputs["data_noise"]), inputs["data_t"])
    hidden = forced(model, [asked] * len(span.targets), span)
    return {
        "v_first_step": planes(first),
        "latents": planes(latents),
        "image": 2 * vae.pixels(planes(latents) / vae.scaling + vae.shift) - 1,
        "train_velocity": planes(head.spoken(hidden, span.drawn)),
        "flow_loss": head.losses(hidden, span)["image"].mean,
        "und_logits": read.logits,
    }


def cells(latents: Tensor) -> Tensor:
    return rearrange(latents, "n c h w -> n h w c")


def planes(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "n h w c -> n c h w")
