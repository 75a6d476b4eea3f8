"""LLaVA-1.5 and -1.6 (arXiv 2304.08485, 2310.03744): the original's layout, and transformers' one."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.encoders.preprocessor import OPENAI
from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unsqueeze, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.towers import (
    causal_config,
    colour,
    normalisation,
    preprocessor,
    tower,
    tower_rules,
)
from chiasm.language.templates import VICUNA
from chiasm.sequence import IGNORE, Kind
from chiasm.storage.weights import read_tensors, resolve
from chiasm.views import Size
from chiasm.views.any_resolution import AnyResolution

IMAGE = -200  # the id that marks a picture in the original's input
TOWER = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."
ARRANGEMENTS = {"flat": "tiles", "spatial": "mosaic", "spatial_unpad": "unpadded"}
FEATURES = {"patch": "drop", "cls_patch": "first"}  # and what becomes of the class token
REGIONS = "adapt_spatial_resampler"  # the projector of LLaVA-UHD, a family of its own
LANGUAGES = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
LONGEST = 10_000  # letters of a list of canvases
OF_VIDEOS = ("add_faster_video", "add_time_instruction", "faster_token_stride", "force_sample")
ASPECTS = ("square", "pad", "anyres", None)
# Fields of the original's config that are not its language model's.
OTHERS = ("mm_", "image_", "tokenizer_", "tune_", "freeze_", "use_mm_", "unfreeze_", "vision_tower")
TRAINING = "of training, or of how the checkpoint was made"
VIDEO = "of videos"
WITHOUT_EFFECT = {
    **EVERYWHERE,
    "config.mm_vision_tower": "where the tower's files are, which the folder's reader follows",
    "padding": "a colour, where image_aspect_ratio asks for one",
    "config.mm_hidden_size": "the tensors of the projector tell",
    "config.mm_use_im_patch_token": "a word of the vocabulary that no prompt holds",
    "config.image_grid_pinpoints": "of tiles, where image_aspect_ratio asks for none",
    "config.image_crop_resolution": "of the aspect ratio 'crop_split', which is refused",
    "config.image_split_resolution": "of the aspect ratio 'crop_split', which is refused",
    "config.tokenizer_model_max_length": TRAINING,
    "config.tokenizer_padding_side": TRAINING,
    "config.mm_projector_lr": TRAINING,
    "config.mm_vision_tower_lr": TRAINING,
    "config.mm_tunable_parts": TRAINING,
    "config.mm_newline_position": VIDEO,
    "config.mm_spatial_pool_mode": VIDEO,
    "config.mm_spatial_pool_stride": VIDEO,
    "config.mm_spatial_pool_out_channels": VIDEO,
    "config.tune_mm_mlp_adapter": TRAINING,
    "config.tune_mm_vision_resampler": TRAINING,
    "config.freeze_mm_mlp_adapter": TRAINING,
    "config.freeze_mm_vision_resampler": TRAINING,
    "config.freeze_backbone": TRAINING,
    "config.unfreeze_mm_vision_tower": TRAINING,
    **{f"config.{key}": VIDEO for key in OF_VIDEOS},
}


class Llava(Family, name="llava"):
    """The original's layout (github.com/haotian-liu/LLaVA).

    Its config here is `{config: config.json, vision_config: of the CLIP tower, padding: a colour}`, the tower being
    a checkpoint of its own that most releases only name.
    """

    looks_for = (
        "config.json with mm_projector_type, mm_vision_tower and a model_type such as llava or llava_llama"
    )

    without_effect = WITHOUT_EFFECT

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("mm_projector_type", REGIONS) != REGIONS and config.get("model_type") in LANGUAGES

    def read(self, folder: Folder) -> Original:
        try:
            clip = tower_folder(folder, "mm_vision_tower")
        except CheckpointError as error:
            projector_only = all(name.startswith(PROJECTOR) for name in folder.tensors)
            contents = (
                "holds a projector alone, without the language model that it belongs to; and "
                if projector_only
                else ""
            )
            raise CheckpointError(f"{folder.path} {contents}names a vision tower: {error}") from None
        vision = clip.config.get("vision_config", clip.config)
        configs = {"config": folder.config, "vision_config": vision}
        mean = (preprocessor(folder) or preprocessor(clip)).get("image_mean", OPENAI[0])
        original = Original({**configs, "padding": colour(mean)}, dict(folder.tensors))
        if not any(name.startswith(TOWER) for name in original.tensors):
            tensors = read_tensors(clip.path)
            if any(name.startswith("vision_model.") for name in tensors):  # else transformers 5 wrote it
                tensors = {
                    name.removeprefix("vision_model."): tensor
                    for name, tensor in tensors.items()
                    if name.startswith("vision_model.")
                }
            tensors = {f"{TOWER}vision_model.{name}": tensor for name, tensor in tensors.items()}
            original.tensors |= tensors
            original.borrowed = set(tensors)
        return original

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        llava, vision = config["config"], config["vision_config"]
        class_token = _lookup(
            llava.get("mm_vision_select_feature", "patch"), FEATURES, "mm_vision_select_feature"
        )
        language = {key: llava[key] for key in llava if not key.startswith((*OTHERS, *OF_VIDEOS))}
        _refuse_others(llava)
        return {
            "views": self.views(config),
            "encoder": tower(
                vision,
                "clip_vision_model",
                layer=llava.get("mm_vision_select_layer", -2),
                class_token=class_token,
            ),
            "connector": self.connector(config),
            "language": causal_config(language, LANGUAGES.get(llava.get("model_type", "llava"), "llama")),
        }

    def views(self, config: Mapping[str, Any]) -> dict[str, Any]:
        llava, vision = config["config"], config["vision_config"]
        size, merge = vision.get("image_size", 224), llava.get("mm_patch_merge_type", "flat")
        views: dict[str, Any] = {"type": "whole", "size": size, "fit": "crop"}
        if llava.get("image_aspect_ratio") == "pad":
            views |= {"fit": "pad", "padding": tuple(config.get("padding", colour(OPENAI[0])))}
        if llava.get("image_aspect_ratio") == "anyres":
            points = [(height, width) for width, height in _pinpoints(llava["image_grid_pinpoints"])]
            views = {"type": "any_resolution", "size": size, "resolutions": points}
            views["arrangement"] = _lookup(merge, ARRANGEMENTS, "mm_patch_merge_type")
        elif _lookup(merge, ARRANGEMENTS, "mm_patch_merge_type") == "unpadded":  # a newline behind the image
            views |= {"type": "any_resolution", "resolutions": [], "arrangement": "unpadded"}
        return views

    def connector(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "mlp", "depth": projector_depth(config["config"].get("mm_projector_type", "linear"))}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        marked = spec["views"].get("arrangement") == "unpadded"
        return NameMap(
            *tower_rules(spec["encoder"], TOWER + "vision_model."),
            *self.projector_rules(config),
            Rule("model.image_newline", "views.markers", Unsqueeze())
            if marked
            else Unused("model.image_newline"),
            Unused("model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
            Rule("model.{rest...}", "language.inner.model.{rest...}"),
        )

    def projector_rules(self, config: Mapping[str, Any]) -> Sequence[Rule | Unused]:
        only = self.connector(config)["depth"] == 1  # then it is a layer, else a row of layers
        return [Rule(f"{PROJECTOR}{{rest...}}", f"connector.layers.{'0.' if only else ''}{{rest...}}")]

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder) or normalisation(tower_folder(folder, "mm_vision_tower"))

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return VICUNA if config["config"].get("model_type", "llava") in ("llava", "llava_llama") else None

    def write(self, original: Original, folder: Path) -> None:
        super().write(Original(original.config["config"], original.tensors), folder)


def tower_folder(folder: Folder, key: str) -> Folder:
    """The vision tower that a config names at `key`: a folder inside, or a checkpoint of its own."""
    reference = folder.config.get(key) or ""
    inside = folder.path / reference
    return Folder(inside if reference and inside.is_dir() else resolve(reference))


def _refuse_others(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError for what the original's code can do and no part here does."""
    accepted: dict[str, tuple[Any, ...]] = {
        "mm_use_im_start_end": (False, None),  # words round an image
        "mm_resampler_type": (None,),
        "use_mm_proj": (True, None),
        "image_aspect_ratio": ASPECTS,
    }
    for key, values in accepted.items():
        known_value(key, config.get(key, values[0]), *values)


def projector_depth(projector: str) -> int:
    """Linear layers of a projector called linear, mlp2x_gelu, mlp3x_gelu ..."""
    match = re.fullmatch(r"mlp(\d+)x_gelu", projector)
    if match is None and projector != "linear":
        raise CheckpointError(f"mm_projector_type is {projector!r}; known: linear, mlp2x_gelu and its kin")
    return int(match.group(1)) if match else 1


def _pinpoints(pinpoints: Any) -> list[tuple[int, int]]:
    """Canvases, widths first; old configs hold them as text."""
    if isinstance(pinpoints, str) and len(pinpoints) > LONGEST:
        raise CheckpointError(f"image_grid_pinpoints has {len(pinpoints):,} letters, more than {LONGEST:,}")
    points = ast.literal_eval(pinpoints) if isinstance(pinpoints, str) else pinpoints
    return [(int(width), int(height)) for width, height in points]


def _lookup(name: str, table: Mapping[str, str], field: str) -> str:
    if name not in table:
        raise CheckpointError(f"{field} is {name!r}{nearest(name, table)}")
    return table[name]


@replays("llava", "LlavaLlamaForCausalLM")
@torch.no_grad()
def replay_original(case: Case) -> dict[str, Tensor]:
    """Splices pictures where an id is -200, cuts to the tokenizer's length, pads."""
    config, inputs = case.config["config"], case.inputs
    model = load(find_family("llava"), Original(case.config, case.tensors)).model
    images = []
    for i, (width, height) in enumerate(inputs["image_sizes"].tolist()):
        tiles = unnormalised(model.encoder, inputs[f"image{i}"])
        images.append(CasePicture(f"{i}", Size(height, width), tiles))
    mask, labels = inputs["attention_mask"].bool(), inputs["labels"]
    documents, spliced = [], []
    for row, real, targets in zip(inputs["input_ids"], mask, labels, strict=True):
        ids, row_labels = row[real], targets[real]
        documents.append(
            case_document(model, ids, images, IMAGE, learnt=row_labels != IGNORE, repeated=False)
        )
        kinds = torch.tensor(documents[-1].kinds)
        ours = torch.full_like(kinds, IGNORE)
        ours[kinds == Kind.TEXT] = row_labels[ids != IMAGE]
        spliced.append(ours)
    read = read_documents(model, documents)
    longest = config.get("tokenizer_model_max_length") or read.logits.shape[1]
    lengths = [min(len(each), longest) for each in documents]
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    if config.get("tokenizer_padding_side", "right") == "left":
        real = real.flip(1)
    read.batch.labels[:, longest - 1 :] = IGNORE  # the label of the last one kept was cut off
    targets = torch.full(real.shape, IGNORE)
    for r, ours in enumerate(spliced):
        targets[r, real[r]] = ours[: lengths[r]]
    return {
        "inputs_embeds": scattered(read.embeddings, real),
        "labels": targets,
        "attention_mask": real.long(),
        "logits": scattered(read.logits, real),
        "loss": model.losses(read.batch)["text"].mean,
    }


@replays_table("llava")
def replay_tiles(case: Case) -> list[dict[str, Any]]:
    """Where LLaVA-1.6 lays a picture, what it cuts, and how many tokens that makes."""
    parameters = case.parameters
    tile, side = parameters["tile"], parameters["patches_per_side"]
    points = [(height, width) for width, height in parameters["image_grid_pinpoints"]]
    views = AnyResolution(1, size=tile, resolutions=points)
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        plan, tiles = views.enlarge(size), views.split(size)[1:]
        grid = Size(plan.canvas.height // tile, plan.canvas.width // tile)
        cells = views.unpadded(torch.zeros(grid.height * side, grid.width * side), size)
        corners = [(view.column * tile, view.row * tile) for view in tiles]
        rows.append({
            "width": size.width,
            "height": size.height,
            "best": plan.canvas[::-1],
            "grid_wh": grid[::-1],
            "resized": plan.picture[::-1],
            "paste": (plan.left, plan.top),
            "boxes": [(x, y, x + tile, y + tile) for x, y in corners],
            "unpadded_hw": tuple(cells.shape),
            "tokens_spatial_unpad": len(views.arrange(size, [(side, side)] * (1 + len(tiles)))),
        })  # fmt: skip
    return rows
