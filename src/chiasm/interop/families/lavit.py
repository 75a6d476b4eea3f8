"""LaVIT in the original's layout (arXiv 2309.04669): a folder of tower, tokenizer, language model and decoders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.decoders.schedulers.diffusers_schedulers import DDIM
from chiasm.errors import CheckpointError
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Reshape, Rule, TableRows, Unused
from chiasm.interop.shapes.lavit import (
    COUNTED,
    condition_rules,
    decoder_shape,
    detokenizer_rules,
    merger_rules,
    selector_rules,
    tokenizer,
    tokenizer_rules,
    tokenizer_shape,
    tower,
    tower_rules,
)
from chiasm.interop.shapes.towers import causal_config
from chiasm.storage.folders import write_json
from chiasm.storage.weights import read_tensor

VISUAL, LANGUAGE = "visual_tokenizer/", "language_model/"
TOWER, ENCODER = VISUAL + "eva_vitg_psz14.bin", VISUAL + "tokenizer_encoder.bin"
LOW, HIGH = VISUAL + "tokenizer_decoder.bin", VISUAL + "highres_tokenizer_decoder.bin"
PROJECTION = LANGUAGE + "visual_weight.bin"
SEEN = "read/"  # the tower and merger that read: copies of those that tokenize, which the folder has once
EMPTY = "uncond_embeddings.bin"
DRAWN = {"high": (HIGH, "highres_pixel_decoding/"), "low": (LOW, "pixel_decoding/")}
BEGIN, END, FIRST = 32000, 32001, 32002  # ids of the markers, and of code 0
STRAY = [0, 1, 2, BEGIN]  # words that the original leaves drawable within a picture, and drops
SHORTEST = 20
NETWORKS = {"unet": "denoiser", "vae": "autoencoder"}  # of diffusers, by their places in a decoder of ours
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


class LaVIT(Family, name="lavit"):
    """rain1011/LaVIT-7B-v2: pickles of torch, a language model of transformers, and networks of diffusers.

    Of the two decoders of pictures the one for large pictures is taken where the folder has it; the other's
    decoder of features is then the image tokenizer's. One folder holds one vision tower and one merger; here
    what reads and what tokenizes has its own, so a model whose copies have learnt apart cannot be exported.
    """

    # All but the configs of its networks, which the parts read whole, is what shapes of tensors tell.
    without_effect: ClassVar = {"decoders": "shapes; of two decoders of features one may be kept aside"}
    looks_for = "visual_tokenizer/tokenizer_encoder.bin and eva_vitg_psz14.bin beside language_model/"

    def recognises(self, folder: Folder) -> bool:
        return all((folder.path / name).is_file() for name in (TOWER, ENCODER, PROJECTION))

    def read(self, folder: Folder) -> Original:
        place = folder.path
        files = {name: folder.read(place / name) for name in (TOWER, ENCODER, PROJECTION)}
        files |= {name: folder.read(place / name) for name in (LOW, HIGH) if (place / name).is_file()}
        config: dict[str, Any] = {
            "tokenizer": tokenizer_shape(files[TOWER], files[ENCODER]),
            "language": folder.json(LANGUAGE + "config.json"),
            "draw_marker": _marker(folder),
            "decoders": {name: decoder_shape(files[name]) for name in (LOW, HIGH) if name in files},
        }
        tensors = {f"{name}/{key}": t for name, content in files.items() for key, t in content.items()}
        tensors |= {LANGUAGE + key: tensor for key, tensor in folder.read(place / LANGUAGE).items()}
        for kind, (decoder, below) in DRAWN.items():
            if "drawn" in config or decoder not in files or not (place / below).is_dir():
                continue
            config["drawn"] = kind
            config |= {n: folder.json(f"{below}{n}/{j}.json") for n, j in _CONFIGS.items()}
            for name in ("unet", "vae"):
                tensors |= {f"{below}{name}/{k}": t for k, t in folder.read(place / below / name).items()}
            if kind == "low":
                tensors[below + EMPTY] = read_tensor(place / below / EMPTY)
                config["empty_tokens"] = tensors[below + EMPTY].shape[1]
        seen = {f"{SEEN}{TOWER}/{key}": tensor for key, tensor in files[TOWER].items()}
        retained = [key for key in files[ENCODER] if key.startswith(("token_predictor.", "causal_encoder."))]
        own = files[PROJECTION]
        seen |= {f"{SEEN}{ENCODER}/{key}": files[ENCODER][key] for key in retained if key not in own}
        return Original(config, tensors | seen, borrowed=list(seen))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        settings = config["tokenizer"]
        language = causal_config(config["language"], "llama")
        spec: dict[str, dict[str, Any]] = {
            "views": {"type": "framed", "size": settings["img_size"], "fit": "stretch"},
            "encoder": tower(settings),
            "connector": {
                "type": "lavit",
                **{name: tokenizer(settings)[name] for name in ("depth", "heads", "hidden")},
            },
            "language": {**language, "draw_marker": config["draw_marker"]},
            "image_tokenizer": tokenizer(settings),
            "heads": {
                "image": {
                    "type": "variable",
                    "alphabet": {"type": "shared", "first": FIRST, "end": END, "stray": STRAY},
                    "shortest": SHORTEST,
                },
            },
        }
        if LOW in config["decoders"] and config.get("drawn") != "low":
            shape = config["decoders"][LOW]
            spec["image_tokenizer"] |= {"decoder_depth": shape["depth"], "decoder_width": shape["width"]}
        if "drawn" in config:
            spec["image_decoder"] = _decoder(config)
        return spec

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        settings = config["tokenizer"]
        cells = (settings["img_size"] // settings["patch_size"]) ** 2
        drawn, below = DRAWN[config["drawn"]] if "drawn" in config else ("", "")
        rules: list[Any] = [
            *tower_rules(settings, TOWER + "/", "image_tokenizer.encoder"),
            *tower_rules(settings, f"{SEEN}{TOWER}/", "encoder"),
            *tokenizer_rules(settings, ENCODER + "/"),
            *selector_rules(_reader("token_predictor.", keys), "connector"),
            *merger_rules(settings, _reader("causal_encoder.", keys), "connector"),
            Rule(PROJECTION + "/vit_proj.{p}", "connector.projection.{p}"),
        ]
        if drawn:
            ours = "image_decoder.detokenizer."
            rules += detokenizer_rules(config["decoders"][drawn], cells, drawn + "/", ours)
            rules += condition_rules(drawn + "/", "image_decoder")
            rules += [
                Rule(f"{below}{theirs}/{{rest...}}", f"image_decoder.denoising.{ours}.inner.{{rest...}}")
                for theirs, ours in NETWORKS.items()
            ]
        if "empty_tokens" in config:
            shape = (config["empty_tokens"], config["unet"]["cross_attention_dim"])
            rules.append(Rule(below + EMPTY, "image_decoder.empty_text", Reshape((1, *shape), shape)))
        if LOW in config["decoders"] and drawn != LOW:
            ours = "image_tokenizer.detokenizer."
            rules += detokenizer_rules(config["decoders"][LOW], cells, LOW + "/", ours)
        return NameMap(
            *rules,
            *([] if drawn == LOW else [Unused(LOW + "/unet_proj.{p}")]),
            *([] if drawn == HIGH else [Unused(HIGH + "/{rest...}")]),
            Unused(LANGUAGE + "model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule(
                LANGUAGE + "model.embed_tokens.weight",
                ("language.inner.model.embed_tokens.weight", "views.markers"),
                TableRows((BEGIN, END)),
            ),
            Rule(LANGUAGE + "{rest...}", "language.inner.{rest...}"),
        )

    def tokenizer(self, folder: Folder) -> Path | None:
        return folder.path / LANGUAGE

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        """A codebook that goes on from where it is when it is trained on."""
        codes = folder.read(folder.path / ENCODER)["quantize.embedding.weight"]
        count = torch.ones(len(codes))
        values = (count, codes.clone(), count.clone(), count.long(), count.long(), torch.tensor(1))
        return {f"image_tokenizer.quantizer.{name}": v for name, v in zip(COUNTED, values, strict=True)}

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        files: dict[str, dict[str, Tensor]] = {}
        for name, tensor in original.tensors.items():
            if name.startswith(SEEN):
                raise CheckpointError(
                    "LaVIT's layout has one vision tower and one merger, but those that read have been trained "
                    "apart from those that tokenize; it cannot be exported"
                )
            file, key = _place(name)
            files.setdefault(file, {})[key] = tensor.contiguous().clone()
        for name, content in _configs(original.config).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_json(folder / name, content)
        for file, tensors in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            torch.save(tensors.get("", tensors), folder / file)


_CONFIGS = {"unet": "config", "vae": "config", "scheduler": "scheduler_config"}


def _decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image decoder: its size in pixels is 8 times that of the latents its network was made for."""
    kind = config["drawn"]
    shape = config["decoders"][DRAWN[kind][0]]
    spec = {
        "type": "lavit_diffusion" if kind == "high" else "lavit_diffusion_sd15",
        **shape,
        "heads": config["tokenizer"]["heads"],
        **{name: config[name] for name in ("unet", "vae")},
        "scheduler": config["scheduler"] or DDIM,
    }
    if "sample_size" in config["unet"]:
        spec["size"] = 8 * config["unet"]["sample_size"]
    return spec if kind == "high" else {**spec, "empty_tokens": config["empty_tokens"]}


def _reader(part: str, keys: Collection[str]) -> str:
    """Where the part that reads stands: beside the projection, or copied from the part that tokenizes."""
    own = any(key.startswith(f"{PROJECTION}/{part}") for key in keys)
    return PROJECTION + "/" if own else f"{SEEN}{ENCODER}/"


def _configs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON files of the networks that are not the original's own."""
    files = {LANGUAGE + "config.json": config["language"]}
    if "drawn" in config:
        below = DRAWN[config["drawn"]][1]
        files |= {f"{below}{name}/{file}.json": config[name] for name, file in _CONFIGS.items()}
    return files


def _place(name: str) -> tuple[str, str]:
    """The file of a tensor, and its key there; a file that is one tensor has none."""
    if name.endswith("/" + EMPTY):
        return name, ""
    if ".bin/" in name:
        file, key = name.split(".bin/", 1)
        return file + ".bin", key
    folder, key = name.rsplit("/", 1)
    return f"{folder}/{'pytorch_model' if folder + '/' == LANGUAGE else 'diffusion_pytorch_model'}.bin", key


def _marker(folder: Folder) -> str:
    """What the text tokenizer calls the marker that begins a picture; a name of ours where it has none."""
    added = folder.json(LANGUAGE + "added_tokens.json")
    return next((name for name, id in added.items() if id == BEGIN), "<|image|>")
