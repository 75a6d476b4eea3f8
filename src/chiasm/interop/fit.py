"""Whether tensors are those that a module takes: errors name them in the original's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError
from chiasm.interop.mapping import NameMap, some


def check_fit(
    module: nn.Module, ours: Mapping[str, Tensor], names: NameMap, where: str, prefix: str = ""
) -> dict[str, Tensor]:
    """The tensors that a module takes, from names and shapes alone: it may stand on the meta device.

    Raises CheckpointError naming, in the original's words, those that are missing, left over or of another shape.
    """
    expected = {prefix + key: tensor for key, tensor in module.state_dict().items()}
    full = dict(ours)
    for twins in _tied(module, prefix):
        tied_keys = [key for key in twins if key in ours]
        if tied_keys and any(not torch.equal(ours[tied_keys[0]], ours[key]) for key in tied_keys[1:]):
            raise CheckpointError(f"{where}: the config ties {some(tied_keys)}, but they differ")
        full |= {key: ours[tied_keys[0]] for key in twins if tied_keys and key not in ours}
    full |= {key: tensor for key, tensor in expected.items() if key not in full and names.is_own(key)}

    def called(key: str) -> str:
        return " + ".join(names.their_names(key)) or key

    missing = [called(key) for key in expected if key not in full]
    surplus = [called(key) for key in full if key not in expected]
    reshaped = [
        f"{called(key)} is {tuple(full[key].shape)} but the config makes it {tuple(expected[key].shape)}"
        for key in expected
        if key in full and full[key].shape != expected[key].shape
    ]
    problems = [f"{len(missing)} tensors are missing: {some(missing)}"] if missing else []
    problems += (
        [f"{len(surplus)} tensors are more than the config asks for: {some(surplus)}"] if surplus else []
    )
    problems += [f"the config contradicts {len(reshaped)} tensors: {some(reshaped)}"] if reshaped else []
    if problems:
        raise CheckpointError(f"{where}{_alone(expected, ours)}: {'; '.join(problems)}")
    return full


def _alone(own: Iterable[str], ours: Iterable[str]) -> str:
    """What to add to the folder's name in a message where it has nothing of the language model."""
    present = {key.split(".")[0] for key in ours}
    if "language" in present or not any(key.startswith("language.") for key in own):
        return ""
    contents = "a projector" if "connector" in present else " and ".join(sorted(present)) or "nothing"
    return f" holds {contents} alone, without the language model that it belongs to"


def check_values(
    module: nn.Module, full: Mapping[str, Tensor], names: NameMap, where: str, prefix: str
) -> None:
    """Raise CheckpointError naming weights that are not numbers, or numbers of another kind than a weight's."""
    for name, parameter in module.named_parameters():
        tensor = full[prefix + name]
        their_name = " + ".join(names.their_names(prefix + name)) or name
        if parameter.is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: {their_name} is of type {tensor.dtype}; a weight has to be a real number"
            )
        if not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise CheckpointError(f"{where}: {their_name} has {count} values that are not finite")


def _tied(module: nn.Module, prefix: str) -> list[list[str]]:
    """Names of one and the same parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(prefix + name)
    return [names for names in groups.values() if len(names) > 1]
