"""LlamaGen's `generate` for classes, rebuilt from its description: what `sampling.py` compares with.

It takes the tensors of a model of ours under the original's names, and draws greedily.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class LlamaGen:
    """A cache laid out for the whole picture; each step attends to all of it under a row of a causal mask, behind
    and without the class, and turns queries and keys by a table of rotations.
    """

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]):
        self.tensors = {key.removeprefix("gpt."): tensor for key, tensor in tensors.items()}
        self.config, self.side = config, round(config["block_size"] ** 0.5)
        self.rotations = self._rotations()

    def _rotations(self) -> Tensor:
        """Cosine and sine of each position; the class's are 0."""
        half = self.config["dim"] // self.config["n_head"] // 2
        rates = 1.0 / 10000 ** (torch.arange(0, half, 2)[: half // 2].float() / half)
        angles = torch.arange(self.side)[:, None] * rates
        grid = torch.cat(
            [each.expand(self.side, self.side, -1) for each in (angles[:, None], angles[None])], -1
        )
        turns = torch.stack([grid.cos(), grid.sin()], -1).flatten(0, 1)
        return torch.cat([torch.zeros(1, *turns.shape[1:]), turns])

    @torch.inference_mode()
    def draw(self, classes: list[int], scale: float) -> Tensor:
        """Codes, n cells."""
        config, count = self.config, len(classes)
        length = -(-(1 + config["block_size"]) // 8) * 8
        shape = (2 * count, config["n_head"], length, config["dim"] // config["n_head"])
        cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config["n_layer"])]
        mask = torch.tril(torch.ones(length, length, dtype=torch.bool)).unsqueeze(0).repeat(2 * count, 1, 1)
        both = torch.tensor(classes + [config["num_classes"]] * count)
        read = self.tensors["cls_embedding.embedding_table.weight"][both][:, None]
        codes = torch.empty(count, config["block_size"], dtype=torch.long)
        for position in range(config["block_size"]):
            at = torch.tensor([position])
            logits = self._logits(read, at, mask[:, None, at], cache)
            plain, without = logits.chunk(2)
            logits = without + (plain - without) * scale
            chances = functional.softmax(logits[:, -1], -1)
            code = chances.topk(1, dim=-1)[1]
            codes[:, position] = code[:, 0]
            read = functional.embedding(torch.cat([code, code]), self.tensors["tok_embeddings.weight"])
        return codes

    def _logits(self, x: Tensor, at: Tensor, mask: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        turns = self.rotations[at]
        for layer, (keys, values) in enumerate(cache):
            name = f"layers.{layer}"
            normed = self._norm(x, f"{name}.attention_norm.weight")
            x = x + self._attention(normed, f"{name}.attention", at, turns, mask, keys, values)
            normed = self._norm(x, f"{name}.ffn_norm.weight")
            gate, up, down = (self.tensors[f"{name}.feed_forward.{w}.weight"] for w in ("w1", "w3", "w2"))
            inner = functional.silu(functional.linear(normed, gate)) * functional.linear(normed, up)
            x = x + functional.linear(inner, down)
        return functional.linear(self._norm(x, "norm.weight"), self.tensors["output.weight"]).float()

    def _attention(
        self, x: Tensor, name: str, at: Tensor, turns: Tensor, mask: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        rows, count, width = x.shape
        fused = functional.linear(x, self.tensors[f"{name}.wqkv.weight"])
        query, key, value = (each.view(rows, count, keys.shape[1], -1) for each in fused.chunk(3, -1))
        query, key = _turned(query, turns), _turned(key, turns)
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        keys[:, :, at], values[:, :, at] = key, value
        answer = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        answer = answer.transpose(1, 2).contiguous().view(rows, count, width)
        return functional.linear(answer, self.tensors[f"{name}.wo.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scaled = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-5)
        return scaled.type_as(x) * self.tensors[name]


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    turn = turns.view(1, pairs.size(1), 1, pairs.size(3), 2)
    rotated = (
        pairs[..., 0] * turn[..., 0] - pairs[..., 1] * turn[..., 1],
        pairs[..., 1] * turn[..., 0] + pairs[..., 0] * turn[..., 1],
    )
    return torch.stack(rotated, -1).flatten(3).type_as(x)
