"""The HTTP interface: its routes, and what stands before and behind them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from chiasm.errors import ChiasmError
from chiasm.model import Model
from chiasm.serving.bodies import JSONRoute
from chiasm.serving.forms import BODY
from chiasm.serving.guards import Guard
from chiasm.serving.refusals import handle_errors
from chiasm.serving.server import Limits, Server

__all__ = ["Limits", "create_app"]


def create_app(
    models: Mapping[str, Model], *, key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """An ASGI application that serves these models by name; raises ChiasmError for one that cannot answer.

    key: that clients must send, as `Authorization: Bearer KEY`.
    """
    limits = limits or Limits()
    for name, model in models.items():
        if not model.speaks:
            raise ChiasmError(f"{name!r} has no language model: it answers nothing")
    server = Server(models, limits)
    app = FastAPI(title="Chiasm", lifespan=server.lifespan, redirect_slashes=False)
    app.router.route_class = JSONRoute
    app.get("/", include_in_schema=False)(server.playground)
    app.get("/health")(server.health)
    app.get("/metrics")(server.metrics)
    app.get("/v1/models")(server.list_models)
    app.get("/v1/models/{name:path}")(server.get_model)
    app.post("/v1/chat/completions")(server.chat)
    app.post("/v1/completions")(server.complete)
    app.post("/v1/responses")(server.respond)
    app.post("/v1/signals")(server.synthesise)
    app.post("/v1/tokens")(server.tokens)
    app.post("/v1/images/reconstructions")(server.reconstruct)
    app.post("/v1/images/generations")(server.draw)
    app.post("/v1/images/edits", openapi_extra=BODY)(server.edit)
    handle_errors(app)
    app.add_middleware(Guard, key=key, most_bytes=limits.body, seconds=limits.seconds)
    return app
