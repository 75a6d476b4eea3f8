"""Drawing pictures by Chiasm and in the originals' ways, scales and vectors beside codes one by one: speed, memory.

    python benchmarks/sampling.py

The same weights and the same codes on both sides; the sides take turns. `benchmarks/README.md` says how to read the
figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusion_pipelines import against_pipeline
from published_llamagen import LlamaGen
from published_var import Var
from taking_turns import compared, table

from chiasm.data.documents import draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.heads import GREEDY
from chiasm.inference.drawing import decode, draw
from chiasm.interop import find_family
from chiasm.language.llama_block import hidden_width
from chiasm.model import Model
from chiasm.recipe import load_recipe


@dataclass(frozen=True)
class Sizes:
    """Of the models that draw; scales are codes a side."""

    width: int
    depth: int
    heads: int
    scales: tuple[int, ...]
    codebook: int
    tokenizer: int
    pictures: int
    rounds: int
    guidance: float
    denoiser: int
    steps: int


FULL = Sizes(512, 8, 8, (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 4096, 32, 2, 3, 2.5, 64, 10)
QUICK = Sizes(64, 2, 2, (1, 2, 3), 32, 32, 1, 1, 2.5, 32, 5)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    changed = {key: getattr(options, key) for key in ("width", "depth", "heads", "pictures", "rounds")}
    changed = {key: value for key, value in changed.items() if value}
    sizes = replace(QUICK if options.quick else FULL, **changed)
    result = {
        name: compare(sizes) for name, compare in COMPARISONS.items() if name.startswith(options.only or "")
    }
    print(json.dumps(result) if options.json else "\n\n".join(table(*each) for each in result.items()))


def against_var(sizes: Sizes, **options: Any) -> dict[str, Any]:
    """VAR behind classes, greedily, with guidance: ours, and the original's way of doing it."""
    model = var(sizes, classes=1000, **options)
    config = {
        "V": sizes.codebook,
        "Cvae": model.image_tokenizer.quantize.embedding.embedding_dim,
        "ch": sizes.tokenizer,
        "patch_nums": list(sizes.scales),
        "num_classes": 1000,
        "depth": sizes.depth,
        "embed_dim": sizes.width,
        "num_heads": sizes.heads,
        "shared_aln": options.get("shared", False),
        "attn_l2_norm": options.get("cosine", True),
    }
    tensors = {key: value.detach() for key, value in model.state_dict().items()}
    theirs = Var(
        find_family("var").names(config).to_theirs(tensors, "the model"), config, model.image_tokenizer
    )
    classes = [7 * i % 1000 for i in range(sizes.pictures)]

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        return _drawn(model, [str(each) for each in classes], sizes.guidance)

    def published() -> tuple[torch.Tensor, torch.Tensor]:
        codes, pixels = theirs.draw(classes, sizes.guidance - 1)
        return torch.cat(codes, 1)[:, None], pixels

    result = compared({"chiasm": ours, "as published": published}, sizes.pictures, sizes.rounds)
    result["parameters"] = parameters(model)
    return result


def against_var_unguided(sizes: Sizes) -> dict[str, Any]:
    """The same without guidance; the original draws the rows behind no class all the same."""
    return against_var(replace(sizes, guidance=1.0))


def against_llamagen(sizes: Sizes) -> dict[str, Any]:
    """LlamaGen behind classes, greedily, with guidance: ours, and the original's way of doing it."""
    side = sizes.scales[-1]
    hidden = hidden_width(sizes.width)
    language = {"type": "llamagen", "width": sizes.width, "depth": sizes.depth, "heads": sizes.heads}
    language |= {"classes": 1000, "draw_marker": None, "hidden": hidden}
    head = {"type": "raster", "cells": False, "alphabet": {"type": "own"}}
    model = built({"language": language, "image_tokenizer": raster(sizes, side), "heads": {"image": head}})
    lively(model)
    config = {
        "dim": sizes.width,
        "n_layer": sizes.depth,
        "n_head": sizes.heads,
        "num_classes": 1000,
        "block_size": side * side,
        "cls_token_num": 1,
        "vocab_size": sizes.codebook,
        "model_type": "c2i",
    }
    tensors = {key: value.detach() for key, value in model.state_dict().items()}
    theirs = LlamaGen(find_family("llamagen").names(config).to_theirs(tensors, "the model"), config)
    classes = [7 * i % 1000 for i in range(sizes.pictures)]

    def published() -> tuple[torch.Tensor, torch.Tensor]:
        codes = theirs.draw(classes, sizes.guidance).view(-1, side, side)
        return codes, model.image_tokenizer.decode(codes)

    ours = partial(_drawn, model, [str(each) for each in classes], sizes.guidance)
    result = compared({"chiasm": ours, "as published": published}, sizes.pictures, sizes.rounds)
    result["parameters"] = parameters(model)
    return result


def same_codes(sizes: Sizes) -> dict[str, Any]:
    """As many codes a picture in each way: 256 one by one, or the scales up to 10 x 10, which are 255."""
    side = sizes.scales[-1]
    fewer = tuple(each for i, each in enumerate(sizes.scales) if total(sizes.scales[: i + 1]) <= side * side)
    return against_next_token(replace(sizes, scales=fewer), side)


def same_grid(sizes: Sizes) -> dict[str, Any]:
    """The same finest grid, as VAR compares: 256 codes one by one, or ten scales of 680."""
    return against_next_token(sizes, sizes.scales[-1])


ORDERS = {"next_scale": "scales", "next_token": "raster"}


def against_next_token(sizes: Sizes, side: int) -> dict[str, Any]:
    """The same causal language model, drawing side x side codes one by one, or scales."""
    tokenizers = {"next_scale": multi_scale(sizes), "next_token": raster(sizes, side)}
    models = {
        name: built(
            {
                "language": causal(sizes),
                "image_tokenizer": tokenizer,
                "heads": {"image": {"type": ORDERS[name], "alphabet": {"type": "own"}}},
            }
        )
        for name, tokenizer in tokenizers.items()
    }
    prompts = ["a picture"] * sizes.pictures
    sides = {name: partial(_drawn, model, prompts, sizes.guidance) for name, model in models.items()}
    result = compared(sides, sizes.pictures, sizes.rounds)
    result["parameters"] = {name: parameters(model) for name, model in models.items()}
    result["codes"] = {"next_scale": total(sizes.scales), "next_token": side * side}
    result["steps"] = {"next_scale": len(sizes.scales), "next_token": side * side}
    return result


VECTORS_BY = {"raster": "vectors, one by one", "whole": "vectors at once"}


def against_vectors(sizes: Sizes, order: str) -> dict[str, Any]:
    """The same causal language model and as many positions: codes one by one, or vectors by a flow, whose network
    is as large as the tables of the codes. The time is that of drawing alone, for their decoders are not alike."""
    side, wanted = sizes.scales[-1], parameters(_next_token(sizes))
    counts = {hidden: parameters(_flow(sizes, order, hidden)) for hidden in (64, 128, 192)}
    hidden = _root(counts, wanted)
    models = {VECTORS_BY[order]: _flow(sizes, order, hidden), "codes, one by one": _next_token(sizes)}
    prompts = ["a picture"] * sizes.pictures

    def drawn(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return _values(model, prompts, sizes.guidance), torch.zeros(1)

    result = compared(
        {name: partial(drawn, each) for name, each in models.items()}, sizes.pictures, sizes.rounds
    )
    result["parameters"] = {name: parameters(model) for name, model in models.items()}
    result["codes"] = side * side
    result["steps"] = {VECTORS_BY[order]: f"{sizes.steps} of the flow", "codes, one by one": side * side}
    return result


def against_diffusers(sizes: Sizes, scheduler: str) -> dict[str, Any]:
    """A denoiser of diffusers by our decoder, and by diffusers' pipeline."""
    size = 16 * sizes.scales[-1]
    return against_pipeline(scheduler, sizes.denoiser, size, sizes.steps, sizes.pictures, sizes.rounds)


def _next_token(sizes: Sizes) -> Any:
    head = {"type": "raster", "alphabet": {"type": "own"}}
    tokenizer = raster(sizes, sizes.scales[-1])
    return built({"language": causal(sizes), "image_tokenizer": tokenizer, "heads": {"image": head}})


def _flow(sizes: Sizes, order: str, hidden: int) -> Any:
    """Vectors of patches of 16 pixels. hidden: width of the flow's network."""
    alphabet = {"type": "flow", "steps": sizes.steps, "hidden": hidden}
    tokenizer = {"type": "pixels", "size": 16 * sizes.scales[-1], "patch_size": 16}
    head = {"type": order, "alphabet": alphabet}
    return built({"language": causal(sizes), "image_tokenizer": tokenizer, "heads": {"image": head}})


def _root(counts: dict[int, int], wanted: int) -> int:
    """The width, of 8 at least, with which a network has the wanted number of parameters, quadratic in it."""
    (x, fx), (y, fy), (z, fz) = counts.items()
    a = ((fz - fx) / (z - x) - (fy - fx) / (y - x)) / (z - y)
    b = (fy - fx) / (y - x) - a * (x + y)
    c = fx - a * x * x - b * x - wanted
    return max(8, round((-b + max(0.0, b * b - 4 * a * c) ** 0.5) / (2 * a)))


def total(scales: Sequence[int]) -> int:
    return sum(side * side for side in scales)


COMPARISONS: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    "var": against_var,
    "var, no guidance": against_var_unguided,
    "llamagen": against_llamagen,
    "next scale, as many codes": same_codes,
    "next scale, the same grid": same_grid,
    "vectors, one by one": partial(against_vectors, order="raster"),
    "vectors, all at once": partial(against_vectors, order="whole"),
    "diffusion, ddim": partial(against_diffusers, scheduler="ddim"),
    "diffusion, euler": partial(against_diffusers, scheduler="euler"),
    "diffusion, pndm": partial(against_diffusers, scheduler="pndm"),
}


def var(sizes: Sizes, classes: int, **options: Any) -> Any:
    """A VAR whose heads say something, so that greedy codes differ from place to place."""
    language = {
        "type": "var",
        "width": sizes.width,
        "depth": sizes.depth,
        "heads": sizes.heads,
        "classes": classes,
        **options,
    }
    head = {"type": "scales", "alphabet": {"type": "own", "bias": True}}
    model = built({"language": language, "image_tokenizer": multi_scale(sizes), "heads": {"image": head}})
    lively(model)
    return model


def causal(sizes: Sizes) -> dict[str, Any]:
    """A language model of transformers."""
    config = {
        "model_type": "llama",
        "hidden_size": sizes.width,
        "intermediate_size": 4 * sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads,
        "max_position_embeddings": 2048,
    }
    return {"type": "causal", "vocabulary": 300, "config": config}


def lively(model: Any) -> None:
    """Weights that say something, so that greedy codes differ from place to place."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("language.", "heads.image.")) and "norm" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (0.5 if parameter.ndim < 2 else 1.5 * parameter.shape[-1] ** -0.5))
        model.image_tokenizer.quantize.embedding.weight.normal_(generator=generator)


def multi_scale(sizes: Sizes) -> dict[str, Any]:
    config = {"scales": list(sizes.scales), "width": sizes.tokenizer, "codebook_size": sizes.codebook}
    return {"type": "multi_scale", **config}


def raster(sizes: Sizes, side: int) -> dict[str, Any]:
    codes = {"type": "nearest", "codebook_size": sizes.codebook, "width": 32}
    shape = {"size": 16 * side, "width": sizes.tokenizer, "latent_width": 32, "attention_sizes": [side]}
    return {"type": "vqgan", **shape, "quantizer": codes}


def built(model: dict[str, Any]) -> Any:
    recipe = load_recipe({"name": "benchmark", "model": model, "data": {}, "stages": []})
    return Model(recipe.model, texts=["a picture"]).eval()


def parameters(model: Any) -> int:
    """Of what draws codes: language model and head."""
    return sum(p.numel() for part in (model.language, model.image_head) for p in part.parameters())


def _drawn(model: Any, prompts: list[str], guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
    codes = _values(model, prompts, guidance)
    return codes, decode(model, codes)


def _values(model: Any, prompts: list[str], guidance: float) -> torch.Tensor:
    samples = [Sample(prompt, (Message("user", (prompt,)),)) for prompt in prompts]
    documents = [draw_prompt(model.contract, sample) for sample in samples]
    return draw(model, documents, replace(GREEDY, guidance=guidance))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("width", "depth", "heads", "pictures", "rounds"):
        parser.add_argument(f"--{name}", type=int, help=f"default: {getattr(FULL, name)}")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument(
        "--only", help="comparisons whose names begin so: var, llamagen, next, vectors, diffusion"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
