"""What a model costs: parameters, image tokens, FLOPs, time and memory."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from chiasm.data.documents import document, prompt_of, writes_picture
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Sample
from chiasm.evaluation.history import training
from chiasm.evaluation.subject import ModelSubject, expected, pictures_read
from chiasm.inference.kernels import LINEAR, inference_mode
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.recipe import Recipe

ANSWERS = 9  # answered one at a time for the median
DRAWINGS = 3


def cost(
    subject: ModelSubject, recipe: Recipe, samples: Sequence[Sample], metrics: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Parameters, image tokens, FLOPs, passes, median times of one (seconds), peak memory (bytes), training.

    samples: some held-out ones, of which the first that fit are measured. metrics: the lines of metrics.jsonl.
    """
    model = subject.model
    questions = (
        [s for s in samples if pictures_read(s) and expected(s) and not writes_picture(s)]
        if model.sees
        else []
    )
    prompts = [s for s in samples if writes_picture(s) and not pictures_read(s)] if model.draws else []
    result: dict[str, Any] = {"parameters": parameters(model, recipe)}
    result |= {"image_tokens": {}, "flops": {}, "seconds": {}}
    if questions:
        image = pictures_read(questions[0])[0]
        result["image_tokens"]["read"] = model.contract.read_tokens(image.size, questions[0].name)
        result["flops"]["question"] = flops(lambda: _read(model, questions[0]))
        result["seconds"]["answer"] = _seconds(
            [partial(subject.answer, [each]) for each in questions[:ANSWERS]]
        )
    if prompts:
        assert model.contract.span is not None
        result["image_tokens"]["written"] = model.contract.span.length
        result["flops"]["picture"] = flops(lambda: subject.draw(prompts[:1], seed=0))
        result["passes"] = {"picture": passes(model, lambda: subject.draw(prompts[:1], seed=0))}
        draws = [partial(subject.draw, [each], seed=0) for each in prompts[:DRAWINGS]]
        result["seconds"]["picture"] = _seconds(draws)
    result["peak_memory"] = peak_memory()
    result["threads"] = torch.get_num_threads()
    result["training"] = training(metrics)
    return result


def parameters(model: Model, recipe: Recipe) -> dict[str, Any]:
    """Numbers of parameters: all, those that some stage trains, and by slot."""
    trained_slots = {slot for stage in recipe.stages for slot in stage.train}
    slots: dict[str, int] = {}
    counted: set[int] = set()
    trained = 0
    for slot, part in model.slots().items():
        if not isinstance(part, nn.Module):
            continue
        own = {id(p): p.numel() for p in part.parameters() if id(p) not in counted}
        counted |= own.keys()
        if own:
            slots[slot] = sum(own.values())
            trained += slots[slot] if slot in trained_slots else 0
    return {"total": sum(slots.values()), "trainable": trained, "by_slot": slots}


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention; a multiply-add is two."""
    own: dict[Any, Any] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    if LINEAR is not None:
        own[LINEAR] = _linear_flops
    counter = FlopCounterMode(display=False, custom_mapping=own)
    # Its own tracker wants gradients of all that enters a module, also where none are computed.
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        run()
    return int(counter.get_total_flops())


class _NoModules:
    """Counts everything as one."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def passes(model: Model, run: Callable[[], Any]) -> int:
    """Number of sequential passes through the language model, which no further hardware makes fewer."""
    counted = 0

    def count(*_: Any) -> None:
        nonlocal counted
        counted += 1

    hook = model.language.register_forward_hook(count)
    try:
        run()
    finally:
        hook.remove()
    return counted


def peak_memory() -> int:
    """Most memory that this process has held so far, in bytes; of the accelerator where there is one."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@inference_mode
def _read(model: Model, sample: Sample) -> None:
    prompt = document(model.contract, prompt_of(sample), prompt=True)
    model.language.logits(Session(model, [prompt], PictureReader(model.contract)).last)


def _seconds(runs: Sequence[Callable[[], Any]]) -> float:
    """Median time of a run; the first warms up and is not counted, unless it is the only one."""
    times = []
    for run in runs:
        begin = perf_counter()
        run()
        times.append(perf_counter() - begin)
    return median(times[1:] or times)


def _attention_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    *args: Any,
    out_shape: Any = None,
    **_: Any,
) -> int:
    return sdpa_flop_count(query, key, value)


def _linear_flops(
    x: tuple[int, ...], weight: tuple[int, ...], *args: Any, out_shape: Any = None, **_: Any
) -> int:
    return 2 * math.prod(x) * weight[0]
