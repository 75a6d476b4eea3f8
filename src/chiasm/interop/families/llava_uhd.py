"""LLaVA-UHD (arXiv 2403.11703): LLaVA with slices at their own aspect ratio, and a resampler of their regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from chiasm.errors import CheckpointError
from chiasm.interop.config import known_value
from chiasm.interop.families.llava import LANGUAGES, PROJECTOR, REGIONS, WITHOUT_EFFECT, Llava
from chiasm.interop.family import Folder, Original
from chiasm.interop.mapping import Rule, Unused
from chiasm.interop.shapes.resampler_2d import resampler_rules
from chiasm.language.tokenizer_folder import load_tokenizer

# Not in the original's config: what its code holds, and how the tokenizer calls the words between slices.
RESAMPLER, SEPARATORS = "resampler", "separators"
HEAD_WIDTH = 128  # of the resampler
# Pixels of a slice's side, most slices, and pixels of the longer side in its evaluation, as its code has them.
SLICE, SLICES, LONGEST = 336, 7, 1024
COMMA, LINE_END = 29892, 13  # ids of Llama's tokenizer, which its code holds
LINE_ENDS = ("<0x0A>", "Ċ", "\n")  # the names of that piece in vocabularies of several kinds


class LlavaUHD(Llava, name="llava-uhd"):
    """The layout of LLaVA-UHD v1 (github.com/thunlp/LLaVA-UHD, branch LLaVA-UHD-v1): LLaVA's, with its projector.

    How many queries the projector has is read from its tensors.
    """

    looks_for = (
        "config.json with mm_projector_type adapt_spatial_resampler and a model_type such as llava_llama"
    )

    without_effect: ClassVar = {
        **WITHOUT_EFFECT,
        "config.image_aspect_ratio": "images are sliced whatever it says",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("mm_projector_type") == REGIONS and config.get("model_type") in LANGUAGES

    def read(self, folder: Folder) -> Original:
        original = super().read(folder)
        query = original.tensors.get(PROJECTOR + "query")
        if query is None:
            raise CheckpointError(
                f"{folder.path} lacks {PROJECTOR}query, by whose rows its queries are counted"
            )
        heads = max(folder.config.get("hidden_size", 4096) // HEAD_WIDTH, 1)
        original.config[RESAMPLER] = {"grid_size": math.isqrt(len(query)), "num_heads": heads}
        original.config[SEPARATORS] = _separators(folder)
        return original

    def views(self, config: Mapping[str, Any]) -> dict[str, Any]:
        merge = config["config"].get("mm_patch_merge_type", "flat")
        known_value("mm_patch_merge_type", merge, "flat", "spatial")
        return {
            "type": "uhd_slices",
            **{"size": SLICE, "slices": SLICES, "longest": LONGEST},
            "patch": config["vision_config"].get("patch_size", 32),
            "separators": tuple(config[SEPARATORS]),
        }

    def connector(self, config: Mapping[str, Any]) -> dict[str, Any]:
        known_value("mm_projector_type", config["config"].get("mm_projector_type"), REGIONS)
        resampler = config[RESAMPLER]
        return {
            "type": "region_resampler",
            "queries": resampler["grid_size"] ** 2,
            "heads": resampler["num_heads"],
        }

    def projector_rules(self, config: Mapping[str, Any]) -> Sequence[Rule | Unused]:
        return resampler_rules(
            config["config"].get("hidden_size", 4096), PROJECTOR, "connector.", placed=True
        )


def _separators(folder: Folder) -> list[str]:
    """How the folder's tokenizer calls the comma and the line's end; Llama's names where there is none.

    Raises CheckpointError for one that has others where the original's code looks for them.
    """
    if folder.tokenizer is None:
        return [",", LINE_ENDS[0]]
    inner = load_tokenizer(folder.tokenizer)
    vocabulary = inner.get_vocab()
    if len(vocabulary) > COMMA and [vocabulary.get(","), vocabulary.get(LINE_ENDS[0])] != [COMMA, LINE_END]:
        raise CheckpointError(
            f"{folder.path}: ids {COMMA} and {LINE_END}, which the original puts between slices, are "
            f"{inner.convert_ids_to_tokens([COMMA, LINE_END])} of its tokenizer and not ',' and {LINE_ENDS[0]!r}"
        )
    return [",", next((name for name in LINE_ENDS if name in vocabulary), LINE_ENDS[0])]
