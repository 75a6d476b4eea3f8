"""SEED-X (arXiv 2404.14396) in the original's layout: the agent, its language model, encoder and de-tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load_named
from chiasm.interop.family import TOKENIZER_FILES, Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule, TableRows, Unused
from chiasm.interop.shapes import qwen_vl, seed_x
from chiasm.interop.shapes.latent_diffusion import image_size, network_parts, network_rules, read_networks
from chiasm.interop.shapes.towers import causal_config
from chiasm.storage.folders import write_json

AGENT, LANGUAGE = "agent/", "llm/"
VISUAL = "QwenViT/qwen_vit_G.pt"
SEEN = "read/"  # the encoder that reads: a copy of the one that makes targets, which the folder has once
STAGES = {"first_stage": False, "second_stage": True}  # of the de-tokenizer; whether it changes an image
DETOKENIZER, DIFFUSION = "seed_detokenizer", "stable-diffusion-xl-base-1.0"
DECODER = "decoder/"
WORD = "<img_{:05d}>"
WORDS = 64  # of an image
MARKERS = ("<patch>", "</patch>", "<img>", "</img>")
STEPS, GUIDANCE, SOURCE_GUIDANCE = 30, 7.5, 1.5
# Classes of the original by the end of their names, as its YAML files name them.
CLASSES = {"ContinuousLVLM": "agent", "VisionTransformerWithAttnPool": "visual", "SDXLAdapter": "adapter"}
TURNS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] PREFIX{{ message['content'] }} [/INST]\n"
    "{% else %}{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endif %}{% endfor %}"
)


class SeedX(Family, name="seed-x"):
    """AILab-CVC/SEED-X-17B: a folder with `agent` and `llm`, and in it or beside it the tokenizer, QwenViT and, for
    images, seed_detokenizer and stable-diffusion-xl-base-1.0.

    What tensors do not tell is as published, or as the original's YAML files in the folder have it. The folder has
    its encoder once; here what reads and what makes targets has its own. What guidance leads away from is computed
    on import: the features of a grey image.
    """

    looks_for = "agent/pytorch_model.bin beside llm/config.json"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "*._target_": "the class is known",
        "*.pretrained_model_path": "where the weights once were",
        "agent.lm_loss_scale": "of training",
        "agent.rec_loss_scale": "of training",
        "agent.input_resampler.embed_dim": "the tensors tell",
        "agent.input_resampler.kv_dim": "the tensors tell",
        "agent.output_resampler.embed_dim": "the tensors tell",
        "agent.output_resampler.kv_dim": "the tensors tell",
        'visual.image_start_id"': "of Qwen-VL's own language model",
        "visual.image_start_id": "of Qwen-VL's own language model",
        "adapter.full_ft": "of training",
        "adapter.set_trainable_late": "of training",
        "adapter.output1_dim": "the tensors tell",
        "adapter.output2_dim": "the tensors tell",
        "adapter.embedding_dim": "the tensors tell",
        "adapter.stage": "where its file is",
    }

    def recognises(self, folder: Folder) -> bool:
        place = folder.path
        return (place / LANGUAGE / "config.json").is_file() and (
            place / AGENT / "pytorch_model.bin"
        ).is_file()

    def read(self, folder: Folder) -> Original:
        place, written = folder.path, _written(folder)
        agent = folder.read(place / AGENT)
        visual = folder.read(
            _near(folder, [VISUAL, Path(VISUAL).name], "the encoder that its images are read by")
        )
        resamplers = seed_x.agent_shape(agent)
        config: dict[str, Any] = {
            "agent": {**written.get("agent", seed_x.AGENT), **resamplers},
            "visual": {**seed_x.VISUAL, **seed_x.visual_shape(visual), **written.get("visual", {})},
            "llm": folder.json(LANGUAGE + "config.json"),
            "widths": [len(agent[f"{name}_resampler.query"][0]) for name in ("input", "output")],
            "tokens": _ids(self.tokenizer(folder), [*MARKERS, *(WORD.format(i) for i in range(WORDS))]),
        }
        for name in ("input_resampler", "output_resampler"):
            arguments = written.get("agent", {}).get(name, {"num_heads": seed_x.HEADS})
            config["agent"][name] = {**arguments, **resamplers[name]}
        tensors = {AGENT + key: tensor for key, tensor in agent.items()}
        tensors |= {LANGUAGE + key: tensor for key, tensor in folder.read(place / LANGUAGE).items()}
        tensors |= {f"{VISUAL}/{key}": tensor for key, tensor in visual.items()}
        copies = {f"{SEEN}{key}": tensor for key, tensor in visual.items()}
        stage = _stage(folder)
        if stage is not None:
            configs, networks = _networks(folder, stage, written.get("adapter", {}))
            config, tensors = config | configs, tensors | networks
        return Original(config, tensors | copies, borrowed=list(copies))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        agent, tokens = config["agent"], config["tokens"]
        tokenizer = seed_x.tokenizer(config["visual"])
        spec: dict[str, dict[str, Any]] = {
            "views": {"type": "seed_x_tiles", "size": tokenizer["size"], "located": agent["add_patch_pos"]},
            "encoder": tokenizer["encoder"],
            "connector": seed_x.resampler_part(agent["input_resampler"]),
            "language": {
                **causal_config(config["llm"], "llama"),
                **{"draw_marker": MARKERS[2], "draw_end": MARKERS[3]},
            },
            "image_tokenizer": tokenizer,
            "heads": {"image": seed_x.head(agent, [tokens[WORD.format(i)] for i in range(WORDS)])},
        }
        if "adapter" in config:
            size = image_size(config)
            edits = config["adapter"]["edits"]
            spec["image_decoder"] = {
                **{"type": "diffusion", "size": size, "edits": edits},
                "conditioner": seed_x.conditioner(config["adapter"]),
                **{
                    "steps": STEPS,
                    "guidance": GUIDANCE,
                    "source_guidance": SOURCE_GUIDANCE if edits else 1.0,
                },
                **network_parts(config, size),
            }
        return spec

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        encoder = qwen_vl.encoder(config["visual"])
        table = ("language.inner.model.embed_tokens.weight", "views.markers")
        decoder = []
        if "adapter" in config:
            options = seed_x.conditioner(config["adapter"])
            decoder = [
                *network_rules(DECODER + "unet.", DECODER + "vae."),
                *seed_x.conditioner_rules(options, DECODER + "resampler.", "image_decoder.conditioner."),
            ]
        return NameMap(
            *qwen_vl.encoder_rules(encoder, SEEN, "encoder."),
            *qwen_vl.encoder_rules(encoder, VISUAL + "/", "image_tokenizer.encoder."),
            *seed_x.agent_rules(tuple(config["widths"]), AGENT),
            *decoder,
            Unused(LANGUAGE + "model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule(
                LANGUAGE + "model.embed_tokens.weight",
                table,
                TableRows([config["tokens"][marker] for marker in MARKERS]),
            ),
            Rule(LANGUAGE + "{rest...}", "language.inner.{rest...}"),
        )

    def tokenizer(self, folder: Folder) -> Path | None:
        places = [
            each for root in _roots(folder) for each in (root, *sorted(root.iterdir())) if each.is_dir()
        ]
        having = [each for each in places if any((each / name).is_file() for name in TOKENIZER_FILES)]
        return having[0] if having else None

    @torch.no_grad()
    def constants(self, folder: Folder) -> dict[str, Tensor]:
        if _stage(folder) is None:
            return {}
        original = self.read(folder)
        spec = seed_x.tokenizer(original.config["visual"])
        tokenizer = parts.build("image_tokenizer", spec).eval()
        names = NameMap(*qwen_vl.encoder_rules(spec["encoder"], VISUAL + "/", "encoder."))
        theirs = {name: tensor for name, tensor in original.tensors.items() if name.startswith(VISUAL)}
        ours, _ = names.to_ours(theirs, str(folder.path))
        load_named(tokenizer, ours, names, str(folder.path))
        return {"image_decoder.conditioner.negative": seed_x.grey_target(tokenizer)}

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return {
            "default": TURNS.replace("PREFIX", ""),
            "draw": TURNS.replace("PREFIX", "Generate an image: "),
        }

    def write(self, original: Original, folder: Path) -> None:
        copies = [name for name in original.tensors if name.startswith(SEEN)]
        if copies:
            raise CheckpointError(
                "SEED-X's layout has one encoder, but the one that reads has been trained apart from the one that "
                "makes targets; it cannot be exported"
            )
        files: dict[str, dict[str, Tensor]] = {}
        for name, tensor in original.tensors.items():
            file, key = _place(name, original.config)
            files.setdefault(file, {})[key] = tensor.contiguous().clone()
        configs = {LANGUAGE + "config.json": original.config["llm"]}
        if "adapter" in original.config:
            configs |= {
                f"{DIFFUSION}/{name}/{file}": original.config[name]
                for name, file in {"vae": "config.json", "scheduler": "scheduler_config.json"}.items()
            }
            configs[f"{DIFFUSION}/unet/config.json"] = original.config["unet"]
        for name, content in configs.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(folder / name, content)
        for file, tensors in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            torch.save(tensors, folder / file)


def _roots(folder: Folder) -> tuple[Path, Path]:
    """Where the parts of a model may stand: in its folder, or beside it."""
    return folder.path, folder.path.resolve().parent


def _near(folder: Folder, names: Iterable[str], what: str) -> Path:
    places = [root / name for root in _roots(folder) for name in names]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise CheckpointError(
            f"{folder.path} lacks {' or '.join(names)}, {what}; put it into the folder or beside it"
        )
    return place


def _stage(folder: Folder) -> str | None:
    """The stage of the de-tokenizer that is there, relative to its folder; the first where both are."""
    for root in _roots(folder):
        for stage in STAGES:
            if (root / DETOKENIZER / stage / "pytorch_model.bin").is_file():
                return stage
    return None


def _networks(
    folder: Folder, stage: str, written: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The de-tokenizer of a stage with SDXL's autoencoder; SDXL's own network is replaced by it."""
    adapter = folder.read(_near(folder, [f"{DETOKENIZER}/{stage}/pytorch_model.bin"], "its de-tokenizer"))
    base = _near(folder, [DIFFUSION], "whose autoencoder and scheduler the de-tokenizer works with")
    configs, tensors = read_networks(folder, base, networks=("vae",))
    own = {f"{DECODER}vae.{key.removeprefix('vae/')}": tensor for key, tensor in tensors.items()}
    edits = STAGES[stage]
    first = adapter["unet.conv_in.weight"]
    configs["unet"] = {**configs["unet"], "in_channels": first.shape[1]}
    options = {key: value for key, value in written.items() if key != "resampler"}
    options |= {**seed_x.RESAMPLER, **written["resampler"]} if "resampler" in written else seed_x.ADAPTER
    config = {"adapter": {**options, **seed_x.adapter_shape(adapter), "edits": edits, "stage": stage}}
    return config | configs, own | {DECODER + key: tensor for key, tensor in adapter.items()}


def _written(folder: Folder) -> dict[str, dict[str, Any]]:
    """The arguments of the original's classes by what they build, as YAML files of the folder have them."""
    arguments: dict[str, dict[str, Any]] = {}
    for content in folder.yamls.values():
        target = str(content.get("_target_", "")) if isinstance(content, Mapping) else ""
        for name, part in CLASSES.items():
            if name in target:
                arguments[part] = dict(content)
    return arguments


def _ids(tokenizer: Path | None, tokens: Iterable[str]) -> dict[str, int]:
    """Ids of tokens that were added to a tokenizer; raises CheckpointError for one that it lacks."""
    if tokenizer is None:
        raise CheckpointError(
            "no tokenizer is in the folder or beside it (cvlm_llama2_tokenizer_100img_and_224loc_addpatch)"
        )
    folder = Folder(tokenizer)
    added = dict(folder.json("added_tokens.json"))
    added |= {each["content"]: each["id"] for each in folder.json("tokenizer.json").get("added_tokens", ())}
    decoder = folder.json("tokenizer_config.json").get("added_tokens_decoder", {})
    added |= {each["content"]: int(id) for id, each in decoder.items()}
    lacking = [token for token in tokens if token not in added]
    if lacking:
        raise CheckpointError(
            f"{tokenizer} lacks {len(lacking)} of SEED-X's tokens, first of all {lacking[0]}"
        )
    return {token: added[token] for token in tokens}


def _place(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The file of a tensor, and its key there."""
    if name.startswith(VISUAL):
        return VISUAL, name.removeprefix(VISUAL + "/")
    if name.startswith(DECODER + "vae."):
        return f"{DIFFUSION}/vae/diffusion_pytorch_model.bin", name.removeprefix(DECODER + "vae.")
    if name.startswith(DECODER):
        stage = config["adapter"]["stage"]
        return f"{DETOKENIZER}/{stage}/pytorch_model.bin", name.removeprefix(DECODER)
    below, _, key = name.partition("/")
    return f"{below}/pytorch_model.bin", key
