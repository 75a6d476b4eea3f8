"""Models of transformers with the weights of a folder: all of them, finite, and nothing else.

transformers itself draws what is missing at random and leaves out what is left over, with no more than a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from chiasm.errors import CheckpointError, ChiasmError, reason
from chiasm.storage.weights import is_finite

_SHOWN = 10  # tensors named in an error before it only counts


def load_pretrained(
    kind: Any,
    folder: Path,
    where: str,
    unreadable: str,
    *,
    expected: Callable[[str], bool] = lambda name: True,
    belongs: Callable[[Any, str], bool] = lambda model, name: True,
    **options: Any,
) -> Any:
    """The model in float32 that `kind.from_pretrained` reads from a folder, in evaluation mode.

    kind: a model class of transformers, or an auto class.
    where: the checkpoint, for messages. unreadable: the message, up to its colon, where nothing can be read.
    expected: whether a tensor of the model that the folder lacks is needed.
    belongs: whether a tensor of the folder that the model lacks would be a part of it.
    Raises CheckpointError for a folder that cannot be read, or that does not fit the model, naming tensors.
    """
    with quiet_transformers():
        try:
            model, info = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged here
                trust_remote_code=False,
                **options,
            )
        except ChiasmError:
            raise
        except Exception as error:  # each format and architecture raises what it likes
            raise CheckpointError(f"{unreadable}: {reason(error)}") from error
    problems = {
        "missing": [name for name in info["missing_keys"] if expected(name)],
        "left over": [name for name in info["unexpected_keys"] if belongs(model, name)],
        "of another shape": [mismatch[0] for mismatch in info["mismatched_keys"]],
        "not finite": [name for name, tensor in model.state_dict().items() if not is_finite(tensor)],
    }
    listed = [f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if listed:
        raise CheckpointError(f"{where} does not fit {type(model).__name__}: {'; '.join(listed)}")
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bar and what it reports of tensors and configs, which Chiasm judges."""
    from transformers.utils import logging

    verbosity, shows = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows:
            logging.enable_progress_bar()


def _some(names: list[str]) -> str:
    rest = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + rest
