"""Images that are read, as the language model reads them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.connectors import Connector
from chiasm.distribution.devices import fitting
from chiasm.errors import DataError
from chiasm.language import Language
from chiasm.sequence import ReadImages
from chiasm.views import Views


def visual_tokens(
    read: ReadImages,
    encode: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n gh gw c"]],
    connector: Connector,
    views: Views | None,
    language: Language,
) -> Float[Tensor, "s d"]:
    """All visual tokens of the pictures read, one after another, and behind them the views' markers or words.

    encode: makes features of pixels. Raises DataError if a part breaks its word.
    """
    tables = []
    for g, (group, promised) in enumerate(zip(read.groups, read.tokens, strict=True)):
        features = fitting(group if read.encoded else encode(group), connector)
        visual = connector(features, *([] if read.cells is None else [read.cells[g]]))
        if visual.shape[1] != promised:
            raise DataError(
                f"connector {connector.name!r} made {visual.shape[1]} tokens of a grid of "
                f"{tuple(features.shape[1:3])} but promised {promised}"
            )
        if read.centres is not None:
            assert views is not None
            visual = visual + views.locate(read.centres[g])[:, None]
        tables.append(rearrange(visual, "n k d -> (n k) d"))
    if views is not None and views.marked and views.markers is not None:
        markers = views.markers
        if views.connected:
            side = connector.block()
            blocks = rearrange(markers, "m (r c w) -> m r c w", r=side, c=side)
            markers = rearrange(connector(blocks), "m 1 d -> m d")
        tables.append(markers.to(tables[0].dtype))
    if read.words is not None:
        tables.append(language.embed(read.words).to(tables[0].dtype))
    return torch.cat(tables)
