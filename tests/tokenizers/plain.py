"""Networks of image tokenizers written out as functions of their weights, by the names of taming-transformers."""

import torch
from torch.nn import functional


def shaken(module, seed=0):
    """Every weight drawn anew, so that no bias is 0 and no scale 1: what is left out or swapped shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if parameter.ndim > 1:
                parameter.mul_(1.5 * parameter[0].numel() ** -0.5)
    return module.eval()


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(*shape, seed=2):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def silu(x):
    return x * x.sigmoid()


def group_norm(x, w, name, groups=32, epsilon=1e-6):
    grouped = x.reshape(len(x), groups, -1)
    mean, variance = grouped.mean(-1, keepdim=True), grouped.var(-1, unbiased=False, keepdim=True)
    normed = ((grouped - mean) / (variance + epsilon).sqrt()).reshape(x.shape)
    along = (-1, *[1] * (x.ndim - 2))
    return normed * w[f"{name}.weight"].view(along) + w[f"{name}.bias"].view(along)


def convolve(x, w, name):
    """Of stride 1, which keeps the size."""
    weight = w[f"{name}.weight"]
    return functional.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def narrow_norm(x, w, name):
    """Of the tokenizer `vq` and its kin: eight groups, and torch's epsilon."""
    return group_norm(x, w, name, 8, 1e-5)


def mixed_residual(x, w, name):
    """Of `vq`: normalised, activated, convolved, mixed over the channels, and added."""
    hidden = convolve(silu(narrow_norm(x, w, f"{name}.layers.0")), w, f"{name}.layers.2")
    return x + convolve(silu(hidden), w, f"{name}.layers.4")


def folded(x, side):
    """Patches as channels: of each channel all pixels of a patch in raster order."""
    parts = [x[:, :, row::side, column::side] for row in range(side) for column in range(side)]
    return torch.stack(parts, 2).flatten(1, 2)


def unfolded(x, side):
    """`folded` reversed."""
    n, channels, rows, columns = x.shape
    made = torch.zeros(n, channels // side**2, rows * side, columns * side)
    for i in range(side**2):
        made[:, :, i // side :: side, i % side :: side] = x[:, i :: side**2]
    return made


def residual(x, w, name, norm):
    hidden = convolve(silu(norm(x, w, f"{name}.norm1")), w, f"{name}.conv1")
    hidden = convolve(silu(norm(hidden, w, f"{name}.norm2")), w, f"{name}.conv2")
    return hidden + (convolve(x, w, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in w else x)


def attention(x, w, name, heads, norm):
    q, k, v = (convolve(norm(x, w, f"{name}.norm"), w, f"{name}.{each}").flatten(2) for each in "qkv")
    mixed = []
    for one, other, value in zip(*(each.chunk(heads, 1) for each in (q, k, v)), strict=True):
        chances = (one.mT @ other / one.shape[1] ** 0.5).softmax(-1)
        mixed.append(value @ chances.mT)
    return x + convolve(torch.cat(mixed, 1).view_as(x), w, f"{name}.proj_out")


def blocks(x, w, name, heads, norm):
    """The residual blocks of a level, each with its attention where it has one."""
    i = 0
    while f"{name}.block.{i}.conv1.weight" in w:
        x = residual(x, w, f"{name}.block.{i}", norm)
        if f"{name}.attn.{i}.q.weight" in w:
            x = attention(x, w, f"{name}.attn.{i}", heads, norm)
        i += 1
    assert i
    return x


def middle(x, w, heads, norm):
    x = residual(x, w, "mid.block_1", norm)
    if "mid.attn_1.q.weight" in w:
        x = attention(x, w, "mid.attn_1", heads, norm)
    x = residual(x, w, "mid.block_2", norm)
    i = 0
    while f"mid.extra_mid_res_blocks.{i}.conv1.weight" in w:
        x = residual(x, w, f"mid.extra_mid_res_blocks.{i}", norm)
        i += 1
    return x


def encode(x, w, levels, heads=1, norm=group_norm):
    x = convolve(x, w, "conv_in")
    for level in range(levels):
        x = blocks(x, w, f"down.{level}", heads, norm)
        if level == levels - 1:
            break
        name = f"down.{level}.downsample.conv"
        if f"{name}.weight" in w:  # a row and a column of zeros below and on the right
            wide = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
            wide[:, :, :-1, :-1] = x
            x = functional.conv2d(wide, w[f"{name}.weight"], w[f"{name}.bias"], stride=2)
        else:
            x = x.unflatten(3, (-1, 2)).mean(-1).unflatten(2, (-1, 2)).mean(3)
    x = silu(norm(middle(x, w, heads, norm), w, "norm_out"))
    return convolve(x, w, "conv_out")


def decode(x, w, levels, heads=1, norm=group_norm):
    x = middle(convolve(x, w, "conv_in"), w, heads, norm)
    for level in reversed(range(levels)):
        x = blocks(x, w, f"up.{level}", heads, norm)
        if level:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            name = f"up.{level}.upsample.conv"
            x = convolve(x, w, name) if f"{name}.weight" in w else x
    return convolve(silu(norm(x, w, "norm_out")), w, "conv_out")
