"""VQ-VAE-2 of rosinality/vq-vae-2-pytorch (arXiv 1906.00446)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first, signed, unsigned
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Permute, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers import join_scales

LEVELS = ("t", "b")
SIZE = 256  # of the released checkpoint's training; any multiple of 8 works


class VQVAE2Tokenizer(Family, name="vqvae2"):
    """One .pt file without a config: the structure is read from the tensors."""

    looks_for = "one vqvae_*.pt"
    without_effect: ClassVar = {"decay": "the original does not hand it on: its codebooks keep 0.99"}

    def recognises(self, folder: Folder) -> bool:
        return len(list(folder.path.glob("vqvae_*.pt"))) == 1

    def read(self, folder: Folder) -> Original:
        tensors = {key.removeprefix("module."): tensor for key, tensor in folder.tensors.items()}
        try:
            blocks = {
                key.split(".")[2] for key in tensors if key.startswith("enc_b.blocks.") and ".conv." in key
            }
            config = {
                "in_channel": tensors["enc_b.blocks.0.weight"].shape[1],
                "channel": len(tensors["enc_b.blocks.4.weight"]),
                "n_res_block": len(blocks),
                "n_res_channel": len(tensors["enc_b.blocks.5.conv.1.weight"]),
                "embed_dim": tensors["quantize_t.embed"].shape[0],
                "n_embed": tensors["quantize_t.embed"].shape[1],
            }
        except KeyError as error:
            raise CheckpointError(f"{folder.path} is no VQ-VAE-2: it lacks {error}") from None
        return Original(config, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        config.only("in_channel", 3)
        spec = {
            "type": "vqvae2",
            "size": config.get("res", SIZE),
            "width": config.get("channel", 128),
            "depth": config.get("n_res_block", 2),
            "residual_width": config.get("n_res_channel", 32),
            "code_width": config.get("embed_dim", 64),
            "codebook_size": config.get("n_embed", 512),
            "decay": 0.99,
            "revive_after": 0,
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        ours = "image_tokenizer.quantize_{level}."
        return NameMap(
            Rule("quantize_{level}.embed", ours + "vectors", Permute((1, 0))),
            Rule("quantize_{level}.embed_avg", ours + "sums", Permute((1, 0))),
            Rule("quantize_{level}.cluster_size", ours + "counts"),
            *(OwnTensors(ours + own) for own in ("frequency", "last_use", "last_revival", "batches")),
            Rule("{rest...}", "image_tokenizer.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        """A codebook that has seen no batch would start anew in training."""
        return {f"image_tokenizer.quantize_{level}.batches": torch.tensor(1) for level in LEVELS}

    def write(self, original: Original, folder: Path) -> None:
        torch.save(original.tensors, folder / "vqvae_560.pt")


@replays("vqvae", "VQVAE")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The picture through both levels, from its codes alone, and one training step of the codebooks."""
    layout = find_family("vqvae2")
    constants = layout.constants(Folder(Path()))
    original = Original(case.config, case.tensors)
    tokenizer = load(layout, original, constants=constants).model["image_tokenizer"]
    pixels = unsigned(case.inputs["img"])
    coarse, fine = tokenizer.quantize(pixels)
    looked_up = tokenizer.quantize_t.vectors[coarse.codes], tokenizer.quantize_b.vectors[fine.codes]
    outputs = {
        "quant_t": channels_first(coarse.vectors),
        "quant_b": channels_first(fine.vectors),
        "diff": (coarse.commitment.mean() + fine.commitment.mean())[None],
        "id_t": coarse.codes,
        "id_b": fine.codes,
        "rec": signed(tokenizer.render(coarse.vectors, fine.vectors)),
        "rec_from_code": signed(tokenizer.render(*looked_up)),
    }
    assert join_scales([coarse.codes, fine.codes]).equal(tokenizer.encode(pixels))
    coarse, fine = tokenizer.train().quantize(pixels)
    after_step(tokenizer)
    outputs["rec_train"] = signed(tokenizer.render(coarse.vectors, fine.vectors))
    outputs["latent_loss_train"] = (coarse.commitment.mean() + fine.commitment.mean())[None]
    for level in LEVELS:
        quantizer = getattr(tokenizer, f"quantize_{level}")
        outputs[f"quantize_{level}.embed_after"] = quantizer.vectors.T
        outputs[f"quantize_{level}.cluster_size_after"] = quantizer.counts
        outputs[f"quantize_{level}.embed_avg_after"] = quantizer.sums.T
    return outputs
