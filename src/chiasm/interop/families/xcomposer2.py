"""InternLM-XComposer2-4KHD and -2.5 (arXiv 2404.06512, 2407.03320): Partial LoRA and high-definition tiles."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load, load_named
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Reshape, Rule, Transform
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, unnormalised
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.internlm2 import LINEAR, grouped, internlm2_config, internlm2_rules
from chiasm.interop.shapes.towers import normalisation, tower, tower_rules
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout, attending
from chiasm.views import Size
from chiasm.views.hd_tiles import HDTiles

TOWER = "vit.vision_tower.vision_model."
UPDATES = "routing.updates.inner/model/layers/{n}/"
LANGUAGE = {  # the case's fields of the language model, and transformers'
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "vocab": "vocab_size",
    "rope_theta": "rope_theta",
}
VISION = {"layers": "num_hidden_layers", "heads": "num_attention_heads"}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[UNUSED_TOKEN_146]{{ message['role'] }}\n"
    "{{ message['content'] }}[UNUSED_TOKEN_145]\n{% endfor %}"
    "{% if add_generation_prompt %}[UNUSED_TOKEN_146]assistant\n{% endif %}"
)
HEAD_WIDTH = 64  # of CLIP's towers; the checkpoint does not say
EPS = 1e-6  # of RMSNorm, where the config has none
# Tiles in use, and how they lie: 2.5's tile is 560, 4KHD's 336.
LAYOUTS: dict[int, dict[str, Any]] = {
    560: {"tiles": 24, "enlarge": False, "padding": "end"},
    336: {"tiles": 25},
}


class XComposer2(Family, name="xcomposer2"):
    """The original's layout (github.com/InternLM/InternLM-XComposer).

    Its config here is `{tile, patch, vit, llm, plora}`: what the original holds in its code is read from the
    shapes of the tensors. A released folder's own config.json stands in it as `released`.
    """

    looks_for = "config.json with architectures [InternLMXComposer2ForCausalLM], and tensors plora_glb_GN"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "llm.rope_scaling.type": "dynamic scaling begins beyond max_position_embeddings",
        "markers": "as wide as the tower's features",
        "shapes": "of a recorded case",
        "released": "its keys are those of the language model",
    }

    def recognises(self, folder: Folder) -> bool:
        return any("InternLMXComposer2" in name for name in folder.config.get("architectures") or ())

    def read(self, folder: Folder) -> Original:
        config, tensors = folder.config, dict(folder.tensors)
        try:
            return Original({**_shapes(tensors), "llm": config, "released": config}, tensors)
        except KeyError as error:
            raise CheckpointError(
                f"{folder.path} lacks {error.args[0]}; only 4KHD and 2.5 are known"
            ) from None

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision = {VISION.get(key, key): value for key, value in config["vit"].items()}
        vision |= {"image_size": config["tile"], "patch_size": config["patch"]}
        language_config = config["llm"]
        language = {LANGUAGE.get(key, key): value for key, value in language_config.items()}
        language = {"rms_norm_eps": EPS, "max_position_embeddings": 32768} | language
        layout = LAYOUTS.get(config["tile"], LAYOUTS[560])
        return {
            "views": {"type": "hd_tiles", "size": config["tile"], **layout},
            "encoder": tower(vision, "clip_vision_model", layer=-1),
            "connector": {"type": "pixel_shuffle", "factor": 2, "norm": False},
            "language": internlm2_config(language, tuple(keys)),
            "routing": {
                "type": "partial_lora",
                "rank": config["plora"]["r"],
                "alpha": config["plora"]["alpha"],
                "kinds": ["read"],
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        wide = 4 * config["vit"]["hidden_size"]
        theirs = "model.layers.{n}."
        fused = tuple(f"{UPDATES}self_attn/{name}_proj.b" for name in "qkv")
        return NameMap(
            *tower_rules(spec["encoder"], TOWER),
            Rule("vision_proj.{rest...}", "connector.layers.{rest...}"),
            Rule(("plora_sub_GN", "plora_glb_GN"), "views.markers", Markers(wide)),
            Rule(f"{theirs}attention.wqkv.Plora_A.weight", f"{UPDATES}self_attn/q_proj.a"),
            *[OwnTensors(f"{UPDATES}self_attn/{name}_proj.a") for name in "kv"],  # one and the same as q's
            Rule(f"{theirs}attention.wqkv.Plora_B.weight", fused, grouped(spec["language"])),
            *[
                Rule(
                    f"{theirs}{name}.Plora_{which}.weight",
                    f"{UPDATES}{ours.replace('.', '/')}.{which.lower()}",
                )
                for name, ours in LINEAR.items()
                for which in "AB"
            ],
            *internlm2_rules(spec["language"]),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        super().write(Original(original.config["released"], original.tensors), folder)


class Markers(Transform):
    """The row end (1 1 1 c) and the separator (1 1 c) become two rows."""

    def __init__(self, width: int):
        self.width = width
        self.row_end = Reshape((1, 1, 1, width), (1, width))
        self.separator = Reshape((1, 1, width), (1, width))

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.cat(self.row_end.to_ours(theirs[:1]) + self.separator.to_ours(theirs[1:]))]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        first, second = ours[0].split(1)
        return self.row_end.to_theirs([first]) + self.separator.to_theirs([second])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the original's code holds fixed, by the shapes of its tensors."""
    width, _, patch, _ = tensors[f"{TOWER}embeddings.patch_embedding.weight"].shape
    side = math.isqrt(len(tensors[f"{TOWER}embeddings.position_embedding.weight"]) - 1)
    hidden = len(tensors[f"{TOWER}encoder.layers.0.mlp.fc1.weight"])
    layers = [re.match(rf"{re.escape(TOWER)}encoder\.layers\.(\d+)\.", name) for name in tensors]
    rank = len(tensors["model.layers.0.attention.wqkv.Plora_A.weight"])
    return {
        "tile": side * patch,
        "patch": patch,
        "vit": {
            "hidden_size": width,
            "layers": 1 + max(int(each.group(1)) for each in layers if each),
            "heads": max(1, width // HEAD_WIDTH),
            "intermediate_size": hidden,
        },
        "plora": {"r": rank, "alpha": rank},
        "markers": len(tensors["plora_glb_GN"]),
    }


@replays("xcomposer2", "PLoRA")
@torch.no_grad()
def replay_update(case: Case) -> dict[str, Tensor]:
    """One linear layer, with and without image tokens."""
    config, x = case.config, case.inputs["x"]
    layer = nn.ModuleDict({"layer": nn.Linear(config["in_features"], config["out_features"], config["bias"])})
    options = {"rank": config["lora_r"], "alpha": config["lora_alpha"], "kinds": ["read"]}
    routing = parts.build("routing", {"type": "partial_lora", **options}, layer)
    names = NameMap(
        Rule("Plora_A.weight", "updates.layer.a"),
        Rule("Plora_B.weight", "updates.layer.b"),
        Rule("{p}", "layer.{p}"),
    )
    modules = nn.ModuleDict({"language": layer, "routing": routing})
    ours, _ = names.to_ours(case.tensors, case.name)
    ours = {f"routing.{k}" if k.startswith("updates") else f"language.{k}": v for k, v in ours.items()}
    load_named(modules.eval(), ours, names, case.name)
    outputs = {}
    for name, mask in {"y": case.inputs["im_mask"], "y_text_only": torch.zeros(x.shape[:2])}.items():
        kinds = mask.long() * int(Kind.READ)
        with attending(Layout.causal(*kinds.shape, kinds=kinds)):
            outputs[name] = layer["layer"](x)
    return outputs


@replays("xcomposer2", "InternLMXComposer2ForCausalLM")
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """Pictures that are canvases already, between stretches of three ids and before all others."""
    inputs, tile = case.inputs, case.config["tile"]
    model = load(find_family("xcomposer2"), Original(case.config, case.tensors)).model
    assert isinstance(model.views, HDTiles)
    canvases = [inputs[f"image{i}"] for i in range(len(case.config["shapes"]))]
    # A canvas as it stands: no larger than it is, and no smaller for want of tiles.
    model.views.enlarge, model.views.tiles = False, 4 * max(canvas[0, 0].numel() for canvas in canvases)
    images = []
    for i, canvas in enumerate(canvases):
        overview = functional.interpolate(canvas, (tile, tile), mode="bicubic")
        tiles = rearrange(canvas, "1 c (r h) (s w) -> (r s) c h w", h=tile, w=tile)
        pixels = unnormalised(model.encoder, torch.cat([overview, tiles]))
        images.append(CasePicture(f"{i}", Size(*canvas.shape[2:]), pixels))
    ids, image = inputs["text_ids"], -1
    stretches = list(ids[: 3 * len(images)].split(3))
    spliced = [torch.cat([each, torch.tensor([image])]) for each in stretches]
    row = torch.cat([*spliced, ids[3 * len(images) :]])
    read = read_documents(model, [case_document(model, row, images, image, repeated=False)])
    return {
        "image_embeds": read.visual[None],
        "im_mask": (read.batch.kinds == Kind.READ).long(),
        "logits": read.logits,
    }


@replays_table("xcomposer2")
def replay_tiles(case: Case) -> list[dict[str, Any]]:
    """On which canvas a picture is laid, and how many tokens that makes."""
    parameters = case.parameters
    reference = case.record["reference"]
    newer = "Image_transform" in (reference.get("cls"), reference.get("class"))
    views = HDTiles(
        1,
        size=parameters["tile"],
        tiles=parameters["hd_num"],
        enlarge=not newer,
        padding="end" if newer else "both",
    )
    side = parameters["tile"] // 14 // 2  # tokens along a tile: patches of 14 pixels, two by two
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        plan, tall = views.canvas(size), size.width < size.height
        tiles = Size(plan.size.height // parameters["tile"], plan.size.width // parameters["tile"])
        padding = (plan.left, plan.top, plan.right, plan.bottom)
        rows.append({
            "width": size.width,
            "height": size.height,
            "canvas": plan.size[::-1],
            "tiles_hw": tiles,
            "resized": plan.picture if tall else plan.picture[::-1],
            "padding_ltrb": (padding[1], padding[0], padding[3], padding[2]) if tall else padding,
            "transposed": tall,
            "tokens": len(views.arrange(size, [(side, side)] * (1 + tiles.height * tiles.width))),
        })  # fmt: skip
    return rows
