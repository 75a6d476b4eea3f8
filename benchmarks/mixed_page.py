"""A page of mixed Chinese and English, read by a tiny recipe: the picture and its answers, in docs/learn.md.

    python benchmarks/mixed_page.py       # one training of InternVL's tiny overlay, on pages in both languages

The page is the first held-out one that has letters of both languages, whatever comes out. Chinese needs a font:
`pip install 'chiasm[chinese]'`. A stopped run goes on where it was.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from learn import arguments, train
from learn_figures import MIXED, MIXED_PAGE, folder_of, gather, write
from learn_page import write_page

RECIPE = "internvl-1.5"
PAGES = ("pretrain", "instruct", "held-out")  # the sources of pages
MIX = {
    **{f"data.{name}.language": "mixed" for name in PAGES},
    "data.held-out.tasks": "{question: 2, read: 1}",
    "stages.instruct.data": "{pretrain: 0.25, instruct: 0.75}",
    "evaluation.tasks.resolution": "null",
}
CHINESE, LATIN = re.compile("[\u4e00-\u9fff]"), re.compile("[A-Za-z]")


def main() -> int:
    options = arguments(__doc__, "mixed").parse_args()
    page, folder = Path(options.out), Path(options.runs)
    row = _measured(folder, folder_of(page) / MIXED_PAGE)
    write(folder_of(page) / MIXED, [row])
    write_page(gather([], page), page)
    for each in row["asked"]:
        print(f"{each['question']} | {each['answer']!r} | {each['truth']!r}")
    return 0


def _measured(folder: Path, picture: Path) -> dict[str, Any]:
    """Train, unless that was done; measure on held-out questions, and read one page, whose picture is written."""
    import torch

    import chiasm
    from chiasm.evaluation.evaluate import evaluate
    from chiasm.recipe import load_recipe
    from chiasm.storage.folders import read_json

    torch.set_num_threads(1)
    recipe = load_recipe(RECIPE, [f"{key}={value}" for key, value in MIX.items()], tiny=True)
    seconds = train(recipe, folder)
    figures = evaluate(folder, only=["questions"], report=False)
    run: Mapping[str, Any] = read_json(folder / "run.json")
    return {
        "recipe": RECIPE,
        "scores": figures["tasks"]["questions"],
        "asked": _read_page(chiasm.load(folder), recipe.data["held-out"], picture),
        "seconds": seconds,
        "commit": str(run["git"])[:7],
        "finished": run["finished"],
    }


def _read_page(model: Any, options: Mapping[str, Any], picture: Path) -> list[dict[str, str]]:
    from chiasm import parts

    source = parts.build("data", dict(options))
    number = next(i for i in range(len(source)) if both_languages(source.page(i).text))
    source.picture(number).open().save(picture)
    asked = []
    for sample in source[number]:
        prompt, truth = sample.messages
        answer = model.chat([prompt]).text
        asked.append({"question": prompt.content[-1], "answer": answer, "truth": truth.content[0]})
    return asked


def both_languages(text: str) -> bool:
    return bool(CHINESE.search(text) and LATIN.search(text))


if __name__ == "__main__":
    sys.exit(main())
