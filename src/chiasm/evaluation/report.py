"""report.html: all results of an evaluation in one self-contained file."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from chiasm.errors import ChiasmError
from chiasm.evaluation import experts, plots
from chiasm.evaluation.history import curves
from chiasm.evaluation.verdict import verdict
from chiasm.recipe import load_recipe, write_text
from chiasm.storage.folders import read_json
from chiasm.training.metrics import read_metrics

SAMPLES = "samples"  # folder of the images of the report
FORMATS = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg"}
ABOUT = ("data", "fingerprint", "seed", "overrides", "only", "plugins", "device", "dtype")
OWN_SECTION = ("questions", "phrasings", "generation", "text")
SIGNS = {"right": "✓", "wrong": "✗", "missing": "–", "extra": "+", "empty": ""}
MEANINGS = {
    "object": "share of the asked things that stand anywhere in the image",
    "place": "share of the asked things that stand in the cell they were asked for",
    "count": "share of the images with as many things as asked",
    "all": "share of the images that are exactly the asked scene",
}


def write_report(folder: str | Path) -> Path:
    """Write report.html from what an evaluation left in a run's folder, and return its path."""
    folder = Path(folder)
    path = folder / "report.html"
    write_text(path, render(folder))
    return path


def render(folder: Path) -> str:
    """The report of a run's folder as HTML; raises ChiasmError for one that was not measured."""
    results = _json(folder / "eval.json")
    samples = _json(folder / "samples.json")
    if not results.get("tasks"):
        raise ChiasmError(f"{folder} has no evaluation to report; measure it first: chiasm eval {folder}")
    recipe = load_recipe(folder)
    run = _json(folder / "run.json")
    environment = Environment(
        loader=PackageLoader("chiasm.evaluation", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "number": plots.number,
        "seconds": seconds,
        "bytes": plain_bytes,
        "dots": plots.score_plot,
    }
    environment.globals |= {"mark": plots.legend_mark, "signs": SIGNS, "state": cell_state, "faults": faults}
    return environment.get_template("report.html.j2").render(
        recipe=recipe,
        recipe_yaml=recipe.to_yaml(),
        tasks=results.get("tasks", {}),
        others=others(results.get("tasks", {}), samples),
        metric=results.get("metric", "exact"),
        left_out=results.get("left_out", {}),
        cost=results.get("cost", {}),
        experts=experts.rows(results.get("routing", {})),
        verdict=verdict(results.get("tasks", {})),
        meanings=MEANINGS,
        samples=samples,
        picture=lambda name: data_uri(folder / SAMPLES / name),
        stages=curves(read_metrics(folder)),
        record=flattened({**run, "evaluation": _about(results)}),
        commands=commands(folder, run, results),
        css=Markup(environment.get_template("report.css").render()),
    )


def others(tasks: Mapping[str, Mapping[str, Any]], samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tasks that have no section of their own: their lines, interval apart, and the images of their rows."""
    return [
        {
            "name": name,
            "title": name.replace("_", " "),
            "scores": scores,
            "numbers": [(key, plots.number(value)) for key, value in numbers(scores).items()],
            "rows": samples.get(name, {}).get("rows", []),
        }
        for name, scores in tasks.items()
        if name not in OWN_SECTION
    ]


def numbers(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The plain numbers among scores, those of nested mappings by dotted keys."""
    plain: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            plain |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            plain[f"{prefix}{key}"] = value
    return plain


def cell_state(cell: Mapping[str, str | None]) -> str:
    """State of one cell of a drawn image: right, wrong, missing, extra, or rightly empty."""
    requested, recognised = cell["asked"], cell["found"]
    if requested is None:
        return "empty" if recognised is None else "extra"
    if recognised is None:
        return "missing"
    return "right" if requested == recognised else "wrong"


def faults(cells: Sequence[Mapping[str, str | None]]) -> list[str]:
    """The differences between the prompt and what the checker recognised, in words."""
    wordings = {
        "wrong": "{asked} drawn as {found}",
        "missing": "{asked} not recognised",
        "extra": "{found} too many",
    }
    states = [(cell_state(cell), cell) for cell in cells]
    return [wordings[state].format(**cell) for state, cell in states if state in wordings]


def commands(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """How to repeat the run and its evaluation, as one would type it."""
    trained = run.get("command") or ["chiasm", "train", f"{folder}/recipe.yaml"]
    measured = ["chiasm", "eval", str(folder), *results.get("overrides", [])]
    for option, values in {"--only": results.get("only"), "--plugin": results.get("plugins")}.items():
        for value in values or []:
            measured += [option, value]
    for option in ("device", "dtype"):
        if results.get(option):
            measured += [f"--{option}", results[option]]
    return [shlex.join(trained) if isinstance(trained, list) else str(trained), shlex.join(measured)]


def flattened(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested record as dotted keys and texts."""
    flat: dict[str, str] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def data_uri(path: Path) -> str:
    return f"data:{FORMATS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def plain_bytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _about(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: results[key] for key in ABOUT if results.get(key)}


def _json(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise ChiasmError(
            f"{path} does not hold what Chiasm writes there; remove it and measure again: chiasm eval"
        )
    return content
