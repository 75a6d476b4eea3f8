"""Parts of Chiasm beside transformers' implementation of the same, with the same weights and the same input."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import transformers
from einops import rearrange
from peers import Sizes, blip2, both, deepseek, idefics2, llava, random
from torch import Tensor, nn
from torch.nn import functional

from chiasm import parts
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.sequence.layout import Layout, attending


@dataclass(frozen=True)
class Pair:
    """One part and its peer; `modules` are those whose weights get gradients."""

    name: str
    peer: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    modules: tuple[nn.Module, nn.Module]


PAIRS: dict[str, Callable[[Sizes], Pair]] = {}


def pair(name: str) -> Callable[[Callable[[Sizes], Pair]], Callable[[Sizes], Pair]]:
    def mark(function: Callable[[Sizes], Pair]) -> Callable[[Sizes], Pair]:
        PAIRS[name] = function
        return function

    return mark


def pairs(sizes: Sizes, wanted: list[str]) -> Iterator[Pair]:
    for name, make in PAIRS.items():
        if not wanted or name in wanted:
            torch.manual_seed(0)
            yield make(sizes)


TOWERS = {  # how the tower of a name is called, and how many tokens stand before its patches
    "transformers: CLIP": ("CLIPVision", 1),
    "transformers: SigLIP": ("SiglipVision", 0),
    "transformers: DINOv2": ("Dinov2", 1),
    "transformers: ViT-MAE": ("ViTMAE", 1),
    "transformers: DeiT": ("DeiT", 2),
}


def _tower(name: str, kind: str, before: int) -> None:
    @pair(name)
    def make(sizes: Sizes) -> Pair:
        settings = getattr(transformers, f"{kind}Config")
        usual = settings()  # DINOv2 has no intermediate_size but a ratio, which is four as well
        config = settings(**{key: value for key, value in sizes.tower.items() if hasattr(usual, key)})
        for option, value in {"vision_use_head": False, "mask_ratio": 0.0, "use_mask_token": False}.items():
            if hasattr(config, option):
                setattr(config, option, value)
        theirs = random(getattr(transformers, f"{kind}Model")(config))
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            spec = {"type": "transformers", "checkpoint": folder, "final_norm": kind != "CLIPVision"}
            ours = parts.build("encoder", spec).eval()
        pixels, extra = sizes.pixels(), {}
        if kind == "ViTMAE":  # unmasked it still shuffles: give it the order of the patches
            extra["noise"] = torch.arange((sizes.picture // 14) ** 2).expand(sizes.batch, -1)

        def peer() -> Tensor:
            return theirs((pixels - ours.mean) / ours.deviation, **extra).last_hidden_state[:, before:]

        return Pair(name, type(theirs).__name__, lambda: ours(pixels).flatten(1, 2), peer, (ours, theirs))


for _name, (_kind, _before) in TOWERS.items():
    _tower(_name, _kind, _before)


@pair("eva")
def eva(sizes: Sizes) -> Pair:
    model, theirs = blip2(sizes)
    pixels, ours = sizes.pixels(), model.encoder

    def peer() -> Tensor:
        return theirs.vision_model((pixels - ours.mean) / ours.deviation).last_hidden_state

    return Pair("eva", "Blip2VisionModel", lambda: ours(pixels)[:, 0], peer, (ours, theirs.vision_model))


@pair("qformer")
def qformer(sizes: Sizes) -> Pair:
    model, theirs = blip2(sizes)
    features, ours = sizes.features().flatten(1, 2), model.connector

    def peer() -> Tensor:
        queries = theirs.query_tokens.expand(len(features), -1, -1)
        answer = theirs.qformer(query_embeds=queries, encoder_hidden_states=features)
        return theirs.language_projection(answer.last_hidden_state)

    return Pair("qformer", "Blip2QFormerModel", lambda: ours(features[:, None]), peer, (ours, theirs))


@pair("siglip_native")
def siglip_native(sizes: Sizes) -> Pair:
    model, theirs = idefics2(sizes)
    pixels, ours = sizes.pixels(), model.encoder

    def peer() -> Tensor:
        return theirs.vision_model((pixels - ours.mean) / ours.deviation).last_hidden_state

    return Pair("siglip_native", "Idefics2VisionTransformer", lambda: ours(pixels).flatten(1, 2), peer,
                (ours, theirs.vision_model))  # fmt: skip


@pair("idefics2_resampler")
def idefics2_resampler(sizes: Sizes) -> Pair:
    model, theirs = idefics2(sizes)
    features, ours = sizes.features(), model.connector
    flat = features.flatten(1, 2)
    every = torch.ones(flat.shape[:2], dtype=torch.bool)
    return Pair("idefics2_resampler", "Idefics2Connector", lambda: ours(features),
                lambda: theirs.connector(flat, every), (ours, theirs.connector))  # fmt: skip


@pair("perceiver_resampler")
def perceiver_resampler(sizes: Sizes) -> Pair:
    from transformers.models.idefics.configuration_idefics import IdeficsConfig
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    from chiasm.interop.convert import load_named
    from chiasm.interop.families.idefics import perceiver_rules
    from chiasm.interop.mapping import NameMap

    width, head = sizes.width, sizes.width // sizes.heads
    config = IdeficsConfig(
        vision_config={"embed_dim": width}, perceiver_config={"qk_layer_norms_perceiver": True}
    )
    theirs = random(IdeficsPerceiverResampler(config, width, sizes.layers, sizes.heads, head, 64))
    spec = {"type": "perceiver_resampler", "depth": sizes.layers, "heads": sizes.heads, "head_width": head}
    ours = parts.build("connector", {**spec, "activation": "relu", "head_norm": True}, width, width).eval()
    names = NameMap(*perceiver_rules(""))
    mapped, _ = names.to_ours(theirs.state_dict(), "the peer")
    load_named(ours, mapped, names, "the peer", prefix="connector.")
    features = sizes.features()
    flat = features.flatten(1, 2)
    return Pair("perceiver_resampler", "IdeficsPerceiverResampler", lambda: ours(features),
                lambda: theirs(flat), (ours, theirs))  # fmt: skip


@pair("mlp")
def mlp(sizes: Sizes) -> Pair:
    model, theirs = llava(sizes)
    features, ours, peer = sizes.features(), model.connector, theirs.model.multi_modal_projector
    flat = features.flatten(1, 2)
    return Pair("mlp", type(peer).__name__, lambda: ours(features), lambda: peer(flat), (ours, peer))


@pair("sam")
def sam(sizes: Sizes) -> Pair:
    model, theirs = deepseek(sizes)
    pixels, ours, peer = sizes.pixels(), model.encoder.encoders[0], theirs.model.high_res_vision_model
    pixels = functional.interpolate(pixels, (2 * sizes.picture // 16 * 16,) * 2)
    ours.early, ours.resize, ours.downsample = None, None, nn.Identity()  # what DeepSeek-VL puts behind

    def their() -> Tensor:
        features = peer((pixels - ours.mean) / ours.deviation).last_hidden_state
        return rearrange(features, "n c gh gw -> n gh gw c")

    return Pair("sam", type(peer).__name__, lambda: ours(pixels), their, (ours, peer))


@pair("hybrid, split_mlp")
def hybrid(sizes: Sizes) -> Pair:
    model, theirs = deepseek(sizes)
    small = sizes.pixels()
    large = functional.interpolate(small, (2 * sizes.picture // 16 * 16,) * 2)
    high, low = model.encoder.encoders

    def peer() -> Tensor:
        given = (small - low.mean) / low.deviation, (large - high.mean) / high.deviation
        return theirs.model.get_image_features(*given).pooler_output

    return Pair("hybrid, split_mlp", "DeepseekVLHybridModel",
                lambda: model.connector(model.encoder.joined([large, small])), peer, (model, theirs))  # fmt: skip


@pair("patches, linear")
def patches(sizes: Sizes) -> Pair:
    from transformers.image_utils import SizeDict
    from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

    text = {**sizes.text, "model_type": "persimmon"}
    config = transformers.FuyuConfig(**{k: v for k, v in text.items() if k != "model_type"}, text_config=text)
    model, theirs = both(transformers.FuyuForCausalLM(config), "fuyu")
    cutter = FuyuImageProcessorPil(patch_size=SizeDict(height=30, width=30))
    pixels = torch.rand(sizes.batch, 3, 240, 480)

    def peer() -> Tensor:
        cut = cutter.patchify_image(((pixels - 0.5) / 0.5).numpy())
        return theirs.model.vision_embed_tokens(torch.from_numpy(cut))

    return Pair("patches, linear", "FuyuImageProcessor, FuyuModel", lambda: model.connector(model.encoder(pixels)),
                peer, (model.connector, theirs.model.vision_embed_tokens))  # fmt: skip


@pair("causal")
def causal(sizes: Sizes) -> Pair:
    model, theirs = llava(sizes)
    ours, peer = model.language, theirs.model.language_model
    x = torch.randn(sizes.batch, sizes.length, sizes.width)

    def our() -> Tensor:
        return ours(x, Layout.causal(sizes.batch, sizes.length))

    return Pair("causal", "LlamaModel with SDPA", our,
                lambda: peer(inputs_embeds=x, use_cache=False).last_hidden_state, (ours, peer))  # fmt: skip


@pair("moe")
def moe(sizes: Sizes) -> Pair:
    """Eight experts, two a token; ours computes its load-balance loss as well."""
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    text = {k: v for k, v in sizes.text.items() if k != "model_type"}
    peer = random(MixtralSparseMoeBlock(transformers.MixtralConfig(**text)))
    dense = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**text, "num_hidden_layers": 1}))
    spec = {"type": "moe", "experts": 8, "top_k": 2, "layers": "all", "noise": "never"}
    (ours,) = parts.build("routing", spec, dense).train().each()
    ours.router.weight.data.copy_(peer.gate.weight)
    for expert, gate_up, down in zip(
        ours.experts, peer.experts.gate_up_proj, peer.experts.down_proj, strict=True
    ):
        gate, up = gate_up.chunk(2)
        for layer, weight in ((expert.gate_proj, gate), (expert.up_proj, up), (expert.down_proj, down)):
            layer.weight.data.copy_(weight)
    x = torch.randn(sizes.batch, sizes.length, sizes.width)

    def our() -> Tensor:
        with attending(Layout.causal(*x.shape[:2])):
            return ours(x)

    return Pair("moe", "MixtralSparseMoeBlock", our, lambda: peer(x), (ours, peer))


@pair("gated_cross_attention")
def gated_cross_attention(sizes: Sizes) -> Pair:
    """The norm and the attention; the MLP behind is another one in Idefics."""
    from transformers.models.idefics.modeling_idefics import IdeficsAttention

    from chiasm.routing.gated_cross_attention import GatedCrossAttentionBlock

    width, heads, tokens = sizes.width, sizes.heads, 64
    config = transformers.IdeficsConfig(hidden_size=width, vision_config={"embed_dim": width})
    config._attn_implementation = "sdpa"
    peer = random(IdeficsAttention(width, heads, is_cross_attention=True, config=config, layer_idx=0))
    ours = GatedCrossAttentionBlock(width, width, heads, width // heads, width, False)
    for mine, theirs in ((ours.query, peer.q_proj), (ours.key, peer.k_proj), (ours.value, peer.v_proj),
                         (ours.output, peer.o_proj)):  # fmt: skip
        mine.weight.data.copy_(theirs.weight)
    x = torch.randn(sizes.batch, sizes.length, width)
    seen = torch.randn(sizes.batch, tokens, width)
    own = torch.arange(sizes.batch)
    each = own[:, None].expand(-1, sizes.length)
    images = CrossAttended(seen.flatten(0, 1), own.repeat_interleave(tokens), each, each, each + 1)
    mask = torch.ones(sizes.batch, 1, sizes.length, tokens, dtype=torch.bool)

    def our() -> Tensor:
        return ours.attend(x, images)

    def their() -> Tensor:
        return peer(functional.layer_norm(x, (width,), ours.norm.weight, ours.norm.bias), seen, mask)[0]

    return Pair("gated_cross_attention", "IdeficsAttention", our, their, (ours, peer))
