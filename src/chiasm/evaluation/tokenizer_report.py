"""The report on image tokenizers: Markdown, JSON, a plot of rate against distortion, a sheet of reconstructions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from chiasm.evaluation import plots
from chiasm.evaluation.fidelity import FEATURES, NETWORK
from chiasm.evaluation.tokenizers import Measurement, by_data, measure_all
from chiasm.inference.drawing import to_images
from chiasm.recipe import write_text

SIDE, GAP, MARGIN = 96, 6, 22  # pixels of a picture on the sheet, between pictures, and of a line of words
DISTANCE = f"FD-{NETWORK}"
COLUMNS = ("tokenizer", "codes", "vocabulary", "bits", "coded bits", "bits/pixel", "PSNR dB", "SSIM", DISTANCE,
           "use", "dead", "perplexity", "entropy")  # fmt: skip


def report(
    runs: Sequence[str | Path],
    out: str | Path = "tokenizers",
    *,
    count: int = 256,
    data: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Measure image tokenizers and write report.md, report.json, rate.svg and sheet.png into a folder.

    Arguments as of `chiasm.evaluation.tokenizers.measure_all`. Returns what report.json holds, a record each.
    """
    measurements = measure_all(runs, count=count, data=data, say=say)
    write(measurements, Path(out))
    return [{"name": each.name, **each.figures} for each in measurements]


def write(measurements: Sequence[Measurement], folder: Path) -> None:
    """Write the files of the report; where there are several data sets, a plot and a sheet of each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Image tokenizers", "", *_explained()]
    for number, group in enumerate(by_data(measurements).values()):
        suffix = f"-{number + 1}" if number else ""
        write_text(folder / f"rate{suffix}.svg", str(plot(group)))
        sheet(group).save(folder / f"sheet{suffix}.png", optimize=True)
        lines += ["", *_markdown(group), "", f"![rate against distortion](rate{suffix}.svg)", ""]
        lines += [f"![originals and reconstructions](sheet{suffix}.png)"]
    records = [{"name": each.name, **each.figures} for each in measurements]
    write_text(folder / "report.json", json.dumps(records, indent=1) + "\n")
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def row(each: Measurement) -> list[str]:
    """The cells of a tokenizer's row, one for each of `COLUMNS`."""
    figures = each.figures
    radius = (figures["psnr_ci"][1] - figures["psnr_ci"][0]) / 2
    return [
        each.name,
        f"{figures['codes']:.4g}",
        f"{figures['codebook_size']:,}",
        f"{figures['bits']:,.0f}",
        f"{figures['coded_bits']:,.0f}",
        f"{figures['bits_per_pixel']:.4f}",
        f"{figures['psnr']:.2f} ± {radius:.2f}",
        f"{figures['ssim']:.3f}",
        f"{figures['feature_distance']:.3f}",
        f"{figures['use']:.1%}",
        f"{figures['dead']:,}",
        f"{figures['perplexity']:,.0f}",
        f"{figures['entropy']:.2f}",
    ]


def caption(group: Sequence[Measurement]) -> str:
    """On what the rows of a group were measured."""
    figures = group[0].figures
    unit = f"clips of {figures['frames']} frames" if figures["unit"] == "clip" else "images"
    sides = ", ".join(dict.fromkeys(str(each.figures["side"]) for each in group))
    return (
        f"{figures['pictures']} held-out {unit} at {sides} pixels a side; {DISTANCE} over "
        f"{figures['pictures'] * figures['frames']} {'frames' if figures['unit'] == 'clip' else 'images'}; "
        f"the mean of all of them has {figures['mean_psnr']:.2f} dB"
    )


def plot(group: Sequence[Measurement]) -> str:
    """Bits of a picture against PSNR, as SVG."""
    points = [(each.name, each.figures["coded_bits"], each.figures["psnr"]) for each in group]
    return plots.scatter(points, f"entropy-coded bits a {group[0].figures['unit']}", "PSNR, dB")


def sheet(group: Sequence[Measurement]) -> Image.Image:
    """The originals, and below them the reconstructions of each tokenizer."""
    rows = [("originals", group[0].examples[0]), *((each.name, each.examples[1]) for each in group)]
    columns = max(len(examples) for _, examples in rows)
    width, height = columns * (SIDE + GAP) + GAP, len(rows) * (SIDE + MARGIN) + GAP
    page = Image.new("RGB", (width, height), (250, 250, 252))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for place, (name, examples) in enumerate(rows):
        top = place * (SIDE + MARGIN)
        pen.text((GAP, top + 4), name, (60, 64, 72), font)
        for column, image in enumerate(to_images(examples)):
            scaled = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            page.paste(scaled, (GAP + column * (SIDE + GAP), top + MARGIN))
    return page


def _explained() -> list[str]:
    return [
        "Bits: codes x log2(vocabulary). Coded bits: what an entropy coder needs that knows how often each code "
        "occurs (for each scale apart); entropy (bits) and perplexity are of one code. They are counted on the "
        "held-out images, so with a large vocabulary and few images they are too small. Use: share of the "
        "vocabulary that occurs in them; dead: codes that do not. PSNR with its 95 % interval. "
        f"{DISTANCE}: Fréchet distance over {FEATURES} pooled features of EfficientNet-Lite0; figures of equally "
        "many pictures compare.",
    ]


def _markdown(group: Sequence[Measurement]) -> list[str]:
    head = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    return [caption(group) + ".", "", *head, *("| " + " | ".join(row(each)) + " |" for each in group)]
