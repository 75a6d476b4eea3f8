"""Every option of vector-quantize-pytorch's quantizers is honoured as the package itself has it, or refused.

Runs where the package is installed (`pip install vector-quantize-pytorch`); the refusals are tried everywhere.
"""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from chiasm.interop import verify

SYSTEM = {"system": "lucidrains_vq", "case": "variant",
          "reference": {"class": "LFQ / FSQ / VectorQuantize / ResidualVQ"}}  # fmt: skip


def replayed(folder, cls, options, shape, tensors, inputs, outputs):
    """The result of a case with these tensors and outputs."""
    stored = {f"param/q.{key}": tensor for key, tensor in tensors.items()}
    stored |= {f"input/{key}": tensor for key, tensor in inputs.items()}
    stored |= {f"output/{key}": tensor for key, tensor in outputs.items()}
    save_file(
        {key: t.detach().clone().contiguous() for key, t in stored.items()}, folder / "case.safetensors"
    )
    exact = {"indices": {"exact": True}}
    told = SYSTEM | {"config": {"cls": cls, "args": options, "shape": shape}, "inputs": {},
                     "outputs": {key: exact.get(key, {"atol": 2e-5, "rtol": 1e-4}) for key in outputs}}  # fmt: skip
    (folder / "case.json").write_text(json.dumps(told))
    (result,) = verify([folder / "case.json"])
    return result


SCALARS = {
    "plain": ({"levels": [8, 5, 5, 5]}, [2, 9, 4]),
    "projected": ({"levels": [7, 4], "dim": 6, "projection_has_bias": False, "scale": 2.0}, [2, 9, 6]),
    "symmetric": ({"levels": [2, 3, 4], "preserve_symmetry": True}, [2, 9, 3]),
    "clamped": ({"levels": [8, 5], "bound_hard_clamp": True}, [2, 9, 2]),
    "symmetric and clamped": (
        {"levels": [4, 5], "preserve_symmetry": True, "bound_hard_clamp": True},
        [2, 9, 2],
    ),
    "several": ({"levels": [8, 5], "num_codebooks": 3, "dim": 8}, [2, 9, 8]),
    "one with an axis of its own": ({"levels": [8, 5], "keep_num_codebooks_dim": True}, [2, 9, 2]),
    "channels first": ({"levels": [8, 5, 3], "channel_first": True}, [2, 3, 9]),
    "pictures": ({"levels": [8, 5, 3], "dim": 7}, [2, 7, 4, 3]),
    "rotated": ({"levels": [5, 5, 5], "orthogonal_rotation": True}, [2, 9, 3]),
    "without indices": ({"levels": [8, 5], "return_indices": False}, [2, 9, 2]),
}
SIGNS = {
    "plain": ({"codebook_size": 64}, [2, 9, 6]),
    "weighed": ({"dim": 6, "entropy_loss_weight": 0.3, "commitment_loss_weight": 0.5,
                 "diversity_gamma": 2.0}, [2, 9, 6]),
    "spherical": ({"codebook_size": 64, "spherical": True, "commitment_loss_weight": 0.25}, [2, 9, 6]),
    "spherical, scaled, several": ({"codebook_size": 16, "dim": 10, "num_codebooks": 2, "spherical": True,
                                    "codebook_scale": 0.5, "commitment_loss_weight": 1.0}, [2, 10, 3, 4]),
    "scaled": ({"codebook_size": 32, "codebook_scale": 2.0, "soft_clamp_input_value": 3.0}, [2, 9, 5]),
    "projected": ({"codebook_size": 32, "dim": 8, "projection_has_bias": False}, [2, 9, 8]),
    "projected though equal": ({"codebook_size": 32, "dim": 5, "has_projections": True}, [2, 9, 5]),
    "cosines in": ({"codebook_size": 32, "dim": 8, "cosine_sim_project_in": True,
                    "cosine_sim_project_in_scale": 1.5}, [2, 9, 8]),
    "softplus": ({"codebook_size": 32, "experimental_softplus_entropy_loss": True,
                  "entropy_loss_offset": 1.0}, [2, 9, 5]),
    "rotated": ({"codebook_size": 32, "orthogonal_rotation": True}, [2, 9, 5]),
    "channels last in a picture of one row": ({"codebook_size": 32, "channel_first": True}, [2, 5, 9]),
}  # fmt: skip
SMALL = {"dim": 6, "codebook_size": 12}
BOOKS = {
    "plain": (SMALL, [2, 9, 6]),
    "straight": (SMALL | {"rotation_trick": False, "commitment_weight": 0.5, "decay": 0.7, "eps": 1e-3}, [2, 9, 6]),
    "cosine": (SMALL | {"use_cosine_sim": True}, [2, 9, 6]),
    "projected": (SMALL | {"codebook_dim": 3}, [2, 9, 6]),
    "projected and normalised": (SMALL | {"codebook_dim": 3, "layernorm_after_project_in": True}, [2, 9, 6]),
    "cosine and projected": (SMALL | {"codebook_dim": 3, "use_cosine_sim": True,
                                      "rotation_trick": False}, [2, 9, 6]),
    "heads": (SMALL | {"heads": 2, "codebook_dim": 3}, [2, 9, 6]),
    "heads apart": (SMALL | {"heads": 3, "separate_codebook_per_head": True}, [2, 9, 6]),
    "heads apart, cosine": (SMALL | {"heads": 2, "codebook_dim": 3, "separate_codebook_per_head": True,
                                     "use_cosine_sim": True}, [2, 9, 6]),
    "frozen": (SMALL | {"freeze_codebook": True}, [2, 9, 6]),
    "learnable": (SMALL | {"learnable_codebook": True, "ema_update": False}, [2, 9, 6]),
    "learnable, pushed": (SMALL | {"learnable_codebook": True, "ema_update": False,
                                   "sync_update_v": 0.3}, [2, 9, 6]),
    "by hand": (SMALL | {"manual_ema_update": True}, [2, 9, 6]),
    "without averages": (SMALL | {"ema_update": False}, [2, 9, 6]),
    "not routed": (SMALL | {"route_gradients_to_input": False}, [2, 9, 6]),
    "gumbel straight through": (SMALL | {"straight_through": True, "rotation_trick": False,
                                         "sample_codebook_temp": 0.5}, [2, 9, 6]),
    "diverse": (SMALL | {"codebook_diversity_loss_weight": 0.4, "codebook_diversity_temperature": 3.0}, [2, 9, 6]),
    "diverse heads": (SMALL | {"heads": 2, "codebook_diversity_loss_weight": 0.4}, [2, 9, 6]),
    "diverse heads apart": (SMALL | {"heads": 2, "separate_codebook_per_head": True,
                                     "codebook_diversity_loss_weight": 0.4}, [2, 9, 6]),
    "cross entropy": (SMALL | {"commitment_use_cross_entropy_loss": True}, [2, 9, 6]),
    "cross entropy of heads": (SMALL | {"heads": 2, "commitment_use_cross_entropy_loss": True}, [2, 9, 6]),
    "orthogonal": (SMALL | {"orthogonal_reg_weight": 2.0}, [2, 9, 6]),
    "orthogonal heads apart": (SMALL | {"orthogonal_reg_weight": 2.0, "heads": 2,
                                        "separate_codebook_per_head": True}, [2, 9, 6]),
    "orthogonal, active codes": (SMALL | {"orthogonal_reg_weight": 2.0,
                                          "orthogonal_reg_active_codes_only": True}, [2, 3, 6]),
    "pictures": (SMALL | {"accept_image_fmap": True, "heads": 2}, [2, 6, 3, 4]),
    "volumes": (SMALL | {"accept_3d_fmap": True}, [2, 6, 2, 3, 2]),
    "channels first": (SMALL | {"channel_last": False}, [2, 6, 9]),
    "vectors": (SMALL, [5, 6]),
    "one channel": ({"dim": 1, "codebook_size": 5}, [2, 9, 1]),
    "begun by k-means": (SMALL | {"kmeans_init": True, "kmeans_iters": 3}, [2, 9, 6]),
    "nothing dead": ({"dim": 6, "codebook_size": 2, "threshold_ema_dead_code": 0.2}, [2, 30, 6]),
}  # fmt: skip
DEEP = {"dim": 6, "codebook_size": 12, "num_quantizers": 3}
RESIDUALS = {
    "plain": (DEEP, [2, 9, 6]),
    "cosine, projected": (DEEP | {"codebook_dim": 4, "use_cosine_sim": True}, [2, 9, 6]),
    "shared": (DEEP | {"shared_codebook": True, "decay": 0.9}, [2, 9, 6]),
    "gradients between": (DEEP | {"quant_grad_frac": 0.4, "rotation_trick": False}, [2, 9, 6]),
    "diverse": (DEEP | {"codebook_diversity_loss_weight": 0.1}, [2, 9, 6]),
    "frozen": (DEEP | {"freeze_codebook": True}, [2, 9, 6]),
}


def original(cls, options, shape):
    package = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(5)
    quantizer = getattr(package, cls)(**options)
    for name, tensor in quantizer.state_dict().items():
        if tensor.is_floating_point() and "rot" not in name:
            nn.init.normal_(tensor, std=0.5)
            if name.endswith("cluster_size"):
                tensor.abs_().add_(0.5)
    for name, tensor in quantizer.state_dict().items():
        if name.endswith("initted"):
            tensor.fill_(True)
    tensors = {key: tensor.clone() for key, tensor in quantizer.state_dict().items()}
    return quantizer, tensors, torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize(("options", "shape"), SCALARS.values(), ids=SCALARS)
def test_finite_scalars(tmp_path, options, shape):
    quantizer, tensors, x, r = original("FSQ", options, shape)
    x.requires_grad_()
    quantized, indices = quantizer(x)
    (quantized * r).sum().backward()
    outputs = {"quantized": quantized, "grad_x": x.grad}
    if indices is not None:
        outputs |= {"indices": indices.long(), "codes": quantizer.indices_to_codes(indices)}
    result = replayed(tmp_path, "FSQ", options, shape, tensors, {"x": x, "r": r}, outputs)
    assert result.agrees, str(result)


@pytest.mark.parametrize(("options", "shape"), SIGNS.values(), ids=SIGNS)
def test_signs(tmp_path, options, shape):
    quantizer, tensors, x, r = original("LFQ", options, shape)
    x.requires_grad_()
    (quantized, indices, aux), parts = quantizer(x, return_loss_breakdown=True)
    (aux + (quantized * r).sum()).backward()
    outputs = {"quantized": quantized, "indices": indices.long(), "codes": quantizer.indices_to_codes(indices),
               "aux_loss": aux, "grad_x": x.grad, **parts._asdict()}  # fmt: skip
    result = replayed(tmp_path, "LFQ", options, shape, tensors, {"x": x, "r": r}, outputs)
    assert result.agrees, str(result)


@pytest.mark.parametrize(
    ("cls", "options", "shape"),
    [("VectorQuantize", *each) for each in BOOKS.values()]
    + [("ResidualVQ", *each) for each in RESIDUALS.values()],
    ids=[*BOOKS, *(f"residual {name}" for name in RESIDUALS)],
)
def test_codebooks(tmp_path, cls, options, shape):
    quantizer, tensors, x, r = original(cls, options, shape)
    quantized, indices, _ = quantizer.eval()(x)
    x.requires_grad_()
    trained, _, loss = quantizer.train()(x)
    (loss.sum() + (trained * r).sum()).backward()
    books = [layer._codebook for layer in getattr(quantizer, "layers", [quantizer])]
    outputs = {"quantized": quantized, "indices": indices, "quantized_train": trained,
               "loss": loss, "grad_x": x.grad,
               "embed_after": torch.cat([book.embed for book in books]),
               "cluster_size_after": torch.cat([book.cluster_size for book in books]),
               "embed_avg_after": torch.cat([book.embed_avg for book in books])}  # fmt: skip
    result = replayed(tmp_path, cls, options, shape, tensors, {"x": x, "r": r}, outputs)
    assert result.agrees, str(result)


REFUSED = {
    "FSQ": ({"levels": [5, 5]}, {"noise_dropout": 0.1, "speed": 3}),
    "LFQ": ({"dim": 2}, {"frac_per_sample_entropy": 0.5, "straight_through_activation": "tanh", "levels": [5]}),
    "VectorQuantize": ({"dim": 2, "codebook_size": 4},
                       {"affine_param": True, "directional_reparam": True, "stochastic_sample_codes": True,
                        "vq_bridge": "an MLP", "in_place_codebook_optimizer": "SGD", "kmeans_init": True,
                        "num_codebooks": 2}),
    "ResidualVQ": ({"dim": 2, "codebook_size": 4, "num_quantizers": 1},
                   {"beam_size": 2, "diveq": True, "implicit_neural_codebook": True, "quantize_dropout": True,
                    "heads": 2}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "option", "value"),
    [(cls, option, value) for cls, (_, options) in REFUSED.items() for option, value in options.items()],
)
def test_what_is_not_honoured_is_refused_by_name(tmp_path, cls, option, value):
    plain = REFUSED[cls][0]
    book = {
        "embed": torch.randn(1, 4, 2),
        "embed_avg": torch.randn(1, 4, 2),
        "cluster_size": torch.ones(1, 4),
    }
    prefix = {"VectorQuantize": "_codebook.", "ResidualVQ": "layers.0._codebook."}.get(cls)
    tensors = (
        {prefix + key: tensor for key, tensor in book.items()} if prefix else {"zz_dummy": torch.ones(1)}
    )
    inputs = {"x": torch.randn(1, 3, 2), "r": torch.randn(1, 3, 2)}
    outputs = {"quantized": torch.zeros(1, 3, 2), "loss": torch.zeros(())}
    if not prefix:
        del outputs["loss"]
    assert not replayed(tmp_path, cls, plain, [1, 3, 2], tensors, inputs, outputs).problem
    result = replayed(tmp_path, cls, plain | {option: value}, [1, 3, 2], tensors, inputs, outputs)
    assert option in result.problem
