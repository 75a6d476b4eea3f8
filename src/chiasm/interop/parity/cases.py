"""Parity cases: one run of an original project's code, as `SYSTEM/CASE.json` and `.safetensors`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.storage import safe_json
from chiasm.storage.weights import read_tensors


@dataclass
class Case:
    """One case; `record` is its JSON."""

    path: Path
    record: dict[str, Any]

    @property
    def system(self) -> str:
        return self.record["system"]

    @property
    def name(self) -> str:
        return f"{self.system}/{self.record.get('case', self.path.stem)}"

    @property
    def of(self) -> str:
        """The original's class; of a table, its kind."""
        return self.record["kind"] if self.is_table else self.record["reference"]["class"]

    @property
    def is_table(self) -> bool:
        return "rows" in self.record

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @property
    def arguments(self) -> dict[str, Any]:
        return self.record.get("arguments", {})

    @property
    def parameters(self) -> dict[str, Any]:
        """What a table's rule is set to."""
        return self.record["parameters"]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The original's state dict, with generated weights and shared tensors."""
        weights = self._group("param/")
        generated = self.record.get("generated", {"tensors": []})
        for key, shape, mean, half_range in generated["tensors"]:
            draw = np.random.RandomState(zlib.crc32(f"{generated['seed']}/{key}".encode()))
            u = draw.random_sample(int(np.prod(shape)))
            weights[key] = torch.from_numpy(np.float32(mean + half_range * (2 * u - 1)).reshape(shape))
        return weights | {key: weights[other] for key, other in self.record.get("alias", {}).items()}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self._group("input/")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return self._group("output/")

    @cached_property
    def _stored(self) -> dict[str, Tensor]:
        return read_tensors(self.path.with_suffix(".safetensors"))

    def _group(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): tensor for k, tensor in self._stored.items() if k.startswith(prefix)}


def read_cases(paths: Iterable[str | Path]) -> list[Case]:
    """The cases of files and folders, sorted; raises CheckpointError for a path without any."""
    files: list[Path] = []
    for root in map(Path, paths):
        if root.is_dir():
            cases = sorted(root.rglob("*.json"))
            if not cases:
                raise CheckpointError(f"{root} holds no parity cases (SYSTEM/CASE.json)")
            files += cases
        elif root.with_suffix(".json").is_file():
            files.append(root.with_suffix(".json"))
        else:
            raise CheckpointError(f"there is no parity case {root}")
    return [_read(path) for path in dict.fromkeys(files)]


def _read(path: Path) -> Case:
    try:
        record = safe_json.parse(path.read_text(encoding="utf-8"))
        valid = isinstance(record["system"], str) and (
            "rows" in record or isinstance(record["outputs"], dict)
        )
    except (OSError, ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise CheckpointError(f"{path} is not the JSON of a parity case")
    return Case(path, record)
