"""Unified-IO 2 in the original's layout (arXiv 2312.17172)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config, plain, reader
from chiasm.interop.family import Family, Folder, find_family
from chiasm.interop.mapping import FirstRows, NameMap, OwnTensors, Rule, Unused
from chiasm.language.templates import UNIFIED_IO

# The original renumbers Llama's first words: <s> is 0, </s> is 1, <unk> is 2. Which of its rows each of Llama's is.
FIRST_WORDS = (2, 0, 1)
WORDS = 32_000  # of Llama's vocabulary
EXTRA, FRAMES = 1_200, 8
AUDIO = "of sounds, which are left aside"
HISTORY = "of earlier frames, which are left aside"
ASIDE = (
    *("input_embedders.image_history.", "input_embedders.audio.", "input_embedders.audio_history."),
    "target_embedders.audio.",
)
VIT = "input_embedders.image.image_encoder.vision_transformer."
VQGAN = "target_embedders.image.vqgan."
ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "relu": "relu"}


class UnifiedIO2(Family, name="unified-io-2"):
    """allenai/uio2-large, -xl, -xxl and their -bfloat16: words and images in, words and images out.

    A checkpoint may lack what some modalities need, as `set_modalities` leaves it. What is of sounds and earlier
    frames is kept aside. Text needs Llama's tokenizer, which the original does not bring.
    """

    looks_for = "config.json with t5_config and image_vqgan"
    without_effect: ClassVar = {
        "sequence_length": "of its preprocessor's batches",
        "freeze_vit": "which stage trains what",
        "use_audio_vit": AUDIO,
        "use_audio_history_vit": AUDIO,
        "audio_history_cfg": AUDIO,
        "audio_vit_cfg": AUDIO,
        "audio_vqgan": AUDIO,
        "use_image_history_vit": HISTORY,
        "image_history_cfg": HISTORY,
        "t5_config.audio_vocab_size": AUDIO,
        "t5_config.audio_patch_size": AUDIO,
        "t5_config.audio_vit_patch_size": AUDIO,
        "t5_config.audio_pos_emb": AUDIO,
        "t5_config.audio_history_pos_emb": AUDIO,
        "t5_config.image_history_pos_emb": HISTORY,
        "t5_config.encoder_max_audio_length": AUDIO,
        "t5_config.decoder_max_audio_length": AUDIO,
        "t5_config.default_audio_size": AUDIO,
        "t5_config.default_audio_vit_size": AUDIO,
        "t5_config.default_audio_history_vit_size": AUDIO,
        "t5_config.default_image_history_vit_size": HISTORY,
        "t5_config.default_image_vit_size": "of images that are read, where any are",
        "t5_config.image_vit_patch_size": "of images that are read, where any are",
        "t5_config.default_image_size": "of images that are written, where any are",
        "t5_config.image_tokenizer_type": "of images that are written, where any are",
        "t5_config.image_vocab_size": "of images that are written, where any are",
        "t5_config.image_patch_size": "of images without the vision transformer, which are refused",
        "t5_config.dalle_attn_mask": "worked out and never applied",
        "t5_config.dynamic_unk_mask": "worked out and never applied",
        "t5_config.logits_via_embedding": "never read: words are always scored by their embeddings",
        "*.dropout_rate": "in training only",
        "*.dropout_broadcast_dims": "never read",
        "*.float32_attention_logits": "of half precision alone",
        "image_vit_cfg.pos_patch_size": "never read",
        "image_vit_cfg.default_input_size": "never read",
        "image_vit_cfg.mlp_activations": "never read: always GELU",
        "image_vqgan.dropout": "never read",
        "image_vqgan.checkpoint_path": "where training began",
    }

    def recognises(self, folder: Folder) -> bool:
        return "t5_config" in folder.config and "image_vqgan" in folder.config

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        inputs, targets = config["input_modalities"], config["target_modalities"]
        if "text" not in inputs:
            raise CheckpointError(f"input_modalities are {list(inputs)}; a prompt without text is unknown")
        model: dict[str, dict[str, Any]] = {}
        if "image" in inputs:
            model |= _sight(config)
        else:  # nothing of it has an effect
            plain([config.get(key) for key in ("use_image_vit", "image_vit_cfg")])
        model["language"] = _language(config["t5_config"])
        if "image" in targets:
            model |= _drawing(config)
        else:
            plain(config.get("image_vqgan"))
        return model

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        config = reader(config)
        draws, sees = "image" in config["target_modalities"], "image" in config["input_modalities"]
        marks = {
            "prompt_text": "input_embedders.text",
            "prompt_image": "input_embedders.image",
            "answer_text": "target_embedders.text",
            "answer_image": "target_embedders.image",
        }
        present = {"prompt_text": True, "prompt_image": sees, "answer_image": draws}
        present["answer_text"] = "text" in config["target_modalities"]
        images = Rule("image_token_embedder.weight", "heads.image.alphabet.table.weight")
        levels = len(config["image_vqgan"]["ch_mult"]) if draws else 0
        return NameMap(
            *(Unused(prefix + "{rest...}") for prefix in ASIDE),
            Unused("audio_token_embedder.weight"),
            images if draws else Unused("image_token_embedder.weight"),
            Rule("text_token_embedder.weight", "language.table.weight", FirstRows(FIRST_WORDS)),
            *(
                Rule(f"{theirs}.modality_embedding", f"language.{ours}")
                if present[ours]
                else OwnTensors(f"language.{ours}")
                for ours, theirs in marks.items()
            ),
            *_layer_rules(config["t5_config"]),
            *_vit_rules(),
            *(_vqgan_rules(levels)),
        )

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        return UNIFIED_IO

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        return {token: WORDS + place for place, token in enumerate(_added())}

    def is_special(self, token: str) -> bool:
        return not token.startswith(
            "<extra_id_"
        )  # places in an image, and what stands for text that is left out

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        aside = [name for name in ("audio", "image history") if _present(keys, name.replace(" ", "_"))]
        remarks = [f"without its {' and '.join(aside)}"] if aside else []
        if "text" not in config["target_modalities"]:
            remarks.append("it writes no words")
        if "image" in config["input_modalities"]:
            remarks.append("what pads an image to a square is seen, while the original hides it")
        return "; ".join(remarks)


def _present(keys: Collection[str], modality: str) -> bool:
    return any(key.split(".")[1].startswith(modality) for key in keys if key.count(".") > 1)


def _sight(config: Config) -> dict[str, dict[str, Any]]:
    t5, vit = config["t5_config"], config["image_vit_cfg"]
    config.only("use_image_vit", True)
    _same(vit, "patch_size", t5, "image_vit_patch_size")
    size, table = t5["default_image_vit_size"], math.isqrt(vit["num_pos"] - 1)
    if size[0] != size[1]:
        raise CheckpointError(f"t5_config.default_image_vit_size is {list(size)}; only squares are known")
    if table**2 + 1 != vit["num_pos"]:
        raise CheckpointError(
            f"image_vit_cfg.num_pos is {vit['num_pos']}; known are a square and one position of the class token"
        )
    return {
        "views": {"type": "letterbox", "size": size[0], "padding": (0, 0, 0)},
        "encoder": {
            "type": "unified_io",
            "patch_size": vit["patch_size"],
            "width": _width(vit),
            "depth": vit["num_layers"],
            "heads": vit["num_heads"],
            "hidden": vit["mlp_dim"],
            "table": table,
        },
        "connector": {"type": "mlp", "depth": 1, "bias": False},
    }


def _language(t5: Config) -> dict[str, Any]:
    for key in ("text_pos_emb", "image_pos_emb"):
        t5.only(key, "llama_rope")
    read, written = t5["encoder_max_image_length"], t5["decoder_max_image_length"]
    answer = max(written + 1, t5["decoder_max_text_length"])
    activation, gated, _ = _activation(t5)
    return {
        "type": "unified_io",
        "width": _width(t5),
        "encoder_depth": t5["num_encoder_layers"],
        "decoder_depth": t5["num_decoder_layers"],
        "heads": t5["num_heads"],
        "hidden": t5["mlp_dim"],
        "activation": activation,
        "gated": gated,
        "normalised": t5.get("qk_norm", True),
        "cross_every": t5.get("decoder_xattention_internval", 1),
        "read_scale": math.sqrt(written / read),
        "context": t5["encoder_max_text_length"] + read + answer,
        "vocab_size": t5["vocab_size"],
        "draw_marker": None,
        "empty_prompt": "template",
    }


def _drawing(config: Config) -> dict[str, dict[str, Any]]:
    t5, vqgan = config["t5_config"], config["image_vqgan"]
    t5.only("image_tokenizer_type", "vqgan")
    vqgan.only("double_z", False)
    for key, channels in (("in_channels", 3), ("out_ch", 3)):
        vqgan.only(key, channels)
    size, factor = t5["default_image_size"][0], 2 ** (len(vqgan["ch_mult"]) - 1)
    for place, value, accepted in (
        ("t5_config.default_image_size", t5["default_image_size"], [size, size]),
        ("image_vqgan.default_input_size", vqgan["default_input_size"], [size, size]),
        ("image_vqgan.patch_size", vqgan["patch_size"], [factor, factor]),
    ):
        if list(value) != accepted:
            raise CheckpointError(
                f"{place} is {list(value)}, but for images of {size} pixels and "
                f"{len(vqgan['ch_mult'])} levels only {accepted} is known"
            )
    # Which levels attend is counted from `resolution`, whatever the size of the images.
    levels = range(len(vqgan["ch_mult"]))
    attending = [level for level in levels if vqgan["resolution"] // 2**level in vqgan["attn_resolutions"]]
    structure: dict[str, Any] = {"double_z": False, "in_channels": 3, "out_ch": 3, "resolution": size}
    structure |= {key: vqgan[key] for key in ("z_channels", "ch", "ch_mult", "num_res_blocks")}
    structure["attn_resolutions"] = [size // 2**level for level in attending]
    tokenizer = {"ddconfig": structure, "n_embed": vqgan["n_embed"], "embed_dim": vqgan["embed_dim"]}
    alphabet = {"type": "tied", "first": 2, "rows": t5["image_vocab_size"], "stray": True}
    return {
        **find_family("vqgan").model(tokenizer),
        "heads": {"image": {"type": "raster_begun", "alphabet": alphabet}},
    }


def _width(sizes: Config) -> int:
    heads, each, width = sizes["num_heads"], sizes["head_dim"], sizes["emb_dim"]
    if heads * each != width:
        raise CheckpointError(
            f"{sizes.place}emb_dim is {width}, but {heads} heads of head_dim {each} are {heads * each}"
        )
    return int(width)


def _same(one: Config, key: str, other: Config, other_key: str) -> None:
    if one[key] != other[other_key]:
        raise CheckpointError(
            f"{one.place}{key} is {one[key]}, but {other.place}{other_key} is {other[other_key]}"
        )


def _activation(t5: Config) -> tuple[str, bool, int]:
    """The activation, whether there is a second projection, and which of both is activated."""
    names = list(t5.get("mlp_activations", ("silu", "linear")))
    activated = [i for i, name in enumerate(names) if name in ACTIVATIONS]
    linear = [name for name in names if name == "linear"]
    if len(activated) != 1 or len(linear) > 1 or len(names) != 1 + len(linear):
        raise CheckpointError(
            f"t5_config.mlp_activations is {names}; known: one of {', '.join(ACTIVATIONS)}, alone or by 'linear'"
        )
    return ACTIVATIONS[names[activated[0]]], bool(linear), activated[0]


def _layer_rules(t5: Config) -> list[Rule]:
    _, gated, activated = _activation(t5)
    inner = {f"wi_{activated}": "first", f"wi_{1 - activated}": "gate"} if gated else {"wi": "first"}
    attentions = {
        "encoder": {"attention": "attention"},
        "decoder": {"self_attention": "attention", "encoder_decoder_attention": "cross_attention"},
    }
    norms = {
        "pre_attention_norm": "attention_norm",
        "pre_self_attention_norm": "attention_norm",
        "pre_cross_attention_norm": "cross_norm",
        "pre_mlp_norm": "network_norm",
    }
    rules = []
    for stack, own in attentions.items():
        theirs, ours = f"{stack}.layers_{{n}}.", f"language.{stack}.{{n}}."
        for a, b in own.items():
            rules.append(Rule(f"{theirs}{a}.{{p}}_norm.scale", f"{ours}{b}.{{p}}_norm.weight"))
            rules.append(Rule(f"{theirs}{a}.{{p}}.weight", f"{ours}{b}.{{p}}.weight"))
        for a, b in {**inner, "wo": "second"}.items():
            rules.append(Rule(f"{theirs}mlp.{a}.weight", f"{ours}network.{b}.weight"))
        rules += [
            Rule(f"{theirs}{a}.scale", f"{ours}{b}.weight")
            for a, b in norms.items()
            if (a == "pre_mlp_norm") or (a == "pre_attention_norm") == (stack == "encoder")
        ]
        rules.append(Rule(f"{stack}.{stack}_norm.scale", f"language.{stack}_norm.weight"))
    return rules


def _vit_rules() -> list[Rule | OwnTensors]:
    theirs, ours = VIT + "transformer.resblocks.{n}.", "encoder.blocks.{n}."
    pairs = {"attn.out_proj": "out", "ln_1": "attention_norm", "ln_2": "mlp_norm"}
    pairs |= {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}
    return [
        Rule("input_embedders.image.projection.weight", "connector.layers.0.weight"),
        OwnTensors("encoder.mean"),
        OwnTensors("encoder.deviation"),
        Rule(VIT + "embedding.weight", "encoder.patchify.weight"),
        Rule(VIT + "class_embedding", "encoder.class_embedding"),
        Rule(VIT + "positional_embedding", "encoder.positions"),
        Rule(VIT + "pre_ln.{p}", "encoder.first_norm.{p}"),
        Rule(theirs + "attn.{x}_in_proj_{p}", ours + "{x}.{p}"),
        *(Rule(f"{theirs}{a}.{{p}}", f"{ours}{b}.{{p}}") for a, b in pairs.items()),
    ]


def _vqgan_rules(levels: int) -> list[Rule]:
    """Taming's names with other punctuation; the decoder's levels are counted from the codes on."""
    rules = []
    for level in range(levels):
        for side, way, place in (("encoder", "down", level), ("decoder", "up", levels - 1 - level)):
            theirs, ours = f"{VQGAN}{side}.{way}_{level}_", f"image_tokenizer.{side}.{way}.{place}."
            rules += [
                Rule(f"{theirs}block_{{b}}.{{rest...}}", f"{ours}block.{{b}}.{{rest...}}"),
                Rule(f"{theirs}attn_{{b}}.{{rest...}}", f"{ours}attn.{{b}}.{{rest...}}"),
                Rule(f"{theirs}{way}sample.{{rest...}}", f"{ours}{way}sample.{{rest...}}"),
            ]
    return [
        *rules,
        Rule(VQGAN + "{side}.mid_{rest...}", "image_tokenizer.{side}.mid.{rest...}"),
        Rule(VQGAN + "{rest...}", "image_tokenizer.{rest...}"),
    ]


def _added() -> list[str]:
    """What the original adds behind Llama's words, in order."""
    histories = [f"<{kind}_history_{i}>" for i in range(1, FRAMES + 1) for kind in ("image", "audio")]
    denoisers = {"Text": "SRX", "Image": "SR", "Audio": "SR"}
    prefixes = [f"[{kind}] [{each}]" for kind, letters in denoisers.items() for each in letters]
    extra = [f"<extra_id_{i}>" for i in reversed(range(EXTRA))]
    return [*extra, *histories, "<image_input>", "<audio_input>", *prefixes]
