"""The originals' ways of drawing, rebuilt from their descriptions: what `sampling.py` compares with.

Each takes the tensors of a model of ours under the original's names, and draws greedily.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chiasm.tokenizers.multi_scale import MultiScale


class Var:
    """VAR's `autoregressive_infer_cfg`.

    Both halves of a doubled batch at every scale, keys and values joined to the old ones in each block and step,
    the steering of every block made anew in every step, two rows of logits a position.
    """

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: MultiScale):
        self.tensors = {key.removeprefix("var."): tensor for key, tensor in tensors.items()}
        self.config, self.tokenizer = config, tokenizer
        self.sides = config["patch_nums"]
        levels = torch.cat([torch.full((side * side,), i) for i, side in enumerate(self.sides)])
        self.places = self["lvl_embed.weight"][levels] + self["pos_1LC"][0]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    @torch.inference_mode()
    def draw(self, classes: list[int], cfg: float) -> tuple[list[Tensor], Tensor]:
        """Codes of every scale (n cells), and the pixels; greedy, which is the original's top_k 1."""
        count, width, last = len(classes), self.config["embed_dim"], len(self.sides) - 1
        both = torch.tensor(classes + [self.config["num_classes"]] * count)
        condition = self["class_emb.weight"][both]
        read = condition[:, None] + self["pos_start"] + self.places[:1]
        vectors = torch.zeros(count, self.config["Cvae"], self.sides[-1], self.sides[-1])
        cache: list[tuple[Tensor, Tensor] | None] = [None] * self.config["depth"]
        codes, seen = [], 0
        for index, side in enumerate(self.sides):
            seen += side * side
            steering = self._shared(condition)
            x = read
            for block in range(self.config["depth"]):
                x = self._block(x, block, steering, cache)
            scale, shift = (
                self.linear(functional.silu(condition), "head_nm.ada_lin.1").view(-1, 1, 2, width).unbind(2)
            )
            logits = self.linear(self._norm(x).mul(scale.add(1)).add_(shift), "head")
            strength = cfg * index / last
            logits = (1 + strength) * logits[:count] - strength * logits[count:]
            codes.append(_likeliest(logits))
            contribution = self.tokenizer.quantize.contribution(codes[-1].view(count, side, side), index)
            vectors.add_(contribution)
            if index < last:
                after = self.sides[index + 1]
                coarser = functional.interpolate(vectors, size=(after, after), mode="area")
                read = self.linear(coarser.flatten(2).transpose(1, 2), "word_embed")
                read = (read + self.places[seen : seen + after * after]).repeat(2, 1, 1)
        return codes, self.tokenizer.render(vectors.permute(0, 2, 3, 1)).clamp(0, 1)

    def _shared(self, condition: Tensor) -> Tensor:
        if not self.config["shared_aln"]:
            return condition
        modulation = self.linear(functional.silu(condition), "shared_ada_lin.1")
        return modulation.view(-1, 1, 6, self.config["embed_dim"])

    def _norm(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (x.shape[-1],), eps=1e-6)

    def _block(self, x: Tensor, block: int, steering: Tensor, cache: list[Any]) -> Tensor:
        name, width = f"blocks.{block}", self.config["embed_dim"]
        if self.config["shared_aln"]:
            parts = (self[f"{name}.ada_gss"] + steering).unbind(2)
        else:
            modulation = self.linear(functional.silu(steering), f"{name}.ada_lin.1")
            parts = modulation.view(-1, 1, 6, width).unbind(2)
        gate1, gate2, scale1, scale2, shift1, shift2 = parts
        x = x + self._attention(self._norm(x).mul(scale1.add(1)).add_(shift1), name, block, cache).mul_(gate1)
        inner = self.linear(self._norm(x).mul(scale2.add(1)).add_(shift2), f"{name}.ffn.fc1")
        return x + self.linear(functional.gelu(inner, approximate="tanh"), f"{name}.ffn.fc2").mul(gate2)

    def _attention(self, x: Tensor, name: str, block: int, cache: list[Any]) -> Tensor:
        rows, count, width = x.shape
        q_bias, v_bias = self[f"{name}.attn.q_bias"], self[f"{name}.attn.v_bias"]
        bias = torch.cat((q_bias, torch.zeros_like(q_bias), v_bias))
        fused = functional.linear(x, self[f"{name}.attn.mat_qkv.weight"], bias)
        heads = self.config["num_heads"]
        query, key, value = fused.view(rows, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
        scale = 0.25 / math.sqrt(width // heads)
        if self.config["attn_l2_norm"]:
            sharp = self[f"{name}.attn.scale_mul_1H11"].clamp_max(math.log(100)).exp()
            query, key, scale = (
                functional.normalize(query, dim=-1).mul(sharp),
                functional.normalize(key, dim=-1),
                1.0,
            )
        if cache[block] is not None:
            key, value = torch.cat((cache[block][0], key), 2), torch.cat((cache[block][1], value), 2)
        cache[block] = (key, value)
        answer = functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return self.linear(answer.transpose(1, 2).reshape(rows, count, width), f"{name}.attn.proj")


def _likeliest(logits: Tensor) -> Tensor:
    """Top-k sampling with k = 1, as published: everything below the largest is masked, then one is drawn."""
    least = logits.topk(1, largest=True, sorted=False, dim=-1)[0].amin(dim=-1, keepdim=True)
    logits.masked_fill_(logits < least, -torch.inf)
    drawn = torch.multinomial(logits.softmax(-1).view(-1, logits.shape[-1]), 1)
    return drawn.view(logits.shape[:-1])
