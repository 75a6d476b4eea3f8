"""`chiasm serve`: models over HTTP, until Ctrl-C."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError, excerpt
from chiasm.model import Model
from chiasm.model.checkpoint import load_model
from chiasm.model.sharing import share_weights
from chiasm.terminal.console import say

GRACE = 30  # seconds in which requests under way may be finished


def serve(
    folders: Sequence[str],
    host: str,
    port: int,
    *,
    pending: int,
    body: int,
    images: int,
    pixels: int,
    prefixes: int,
    hosts: Sequence[str],
    device: str | None,
    dtype: str | None,
) -> None:
    """Raises ChiasmError for a folder without a model that answers, or a port that is taken."""
    try:
        import uvicorn

        from chiasm.serving.app import Limits, create_app
    except ImportError as error:
        raise ChiasmError(f"a server needs {error.name}: pip install 'chiasm[serve]'") from None

    named = names(folders)
    listening = bound(host, port)  # before models are loaded in vain
    models: dict[str, Model] = {}
    for name, folder in named.items():
        model = load_model(folder, device, dtype)
        saved = share_weights(model, list(models.values()))
        if saved:
            say(f"{name} shares {saved / 2**20:,.0f} MiB of weights with the models before it")
        models[name] = model
    key = os.environ.get("CHIASM_API_KEY") or None
    limits = Limits(
        pending=pending, body=body, images=images, pixels=pixels, hosts=tuple(hosts), prefixes=prefixes
    )
    app = create_app(models, key=key, limits=limits)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE)
    place, number = listening.getsockname()[:2]
    address = f"http://{f'[{place}]' if ':' in place else place}:{number}/v1"
    whom = "clients with the key" if key else "whoever reaches this address (CHIASM_API_KEY sets a key)"

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            say(f"{', '.join(models)} at {address} for {whom}")

    with suppress(KeyboardInterrupt):  # uvicorn has stopped by then
        Announced(config).run([listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; raises ChiasmError for an address that is taken, or none of this machine's."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, TypeError) as error:  # TypeError: a name that cannot be encoded
        listening.close()
        why = getattr(error, "strerror", None) or "it is no name of a machine"
        raise ChiasmError(
            f"{excerpt(host)}:{port} cannot be listened at: {why.lower()} (--host, --port)"
        ) from None
    return listening


def names(folders: Sequence[str]) -> dict[str, Path]:
    """Folders by the names under which their models are served; raises ChiasmError for one name twice."""
    named: dict[str, Path] = {}
    for each in folders:
        label, equals, place = each.partition("=")
        folder = Path(place if equals else each)
        name = label if equals else folder.resolve().name
        if not name or name in named:
            problem = f"there is another {name!r}" if name else "it has no name"
            raise ChiasmError(f"{each!r}: {problem}; give it one: NAME=FOLDER")
        named[name] = folder
    return named
