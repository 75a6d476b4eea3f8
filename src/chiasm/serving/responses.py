"""Replies in the shape of OpenAI's Responses API: text and images of an answer as items, in their order."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from chiasm.data.sample import ToolCall
from chiasm.inference.preview import Unfinished
from chiasm.serving.replies import Piece, WordsReply, described_as, encoded_as
from chiasm.serving.responses_schema import ImageTool, ResponsesRequest

Event = dict[str, Any]


class ResponsesReply(WordsReply):
    """A response, whole or in events, each of which has a number."""

    prefix = "resp"
    end: ClassVar[Sequence[str]] = ()

    def __init__(self, body: ResponsesRequest, seed: int):
        super().__init__(body.model, seed)
        self.drawing = body.drawing or ImageTool(type="image_generation")
        self.output: list[dict[str, Any]] = []  # the items, of which the last may go on
        self._open = False
        self._partials = self._number = 0
        self.head = {
            "id": self.head["id"].replace("-", "_"),
            "object": "response",
            "created_at": self.head["created"],
            "model": body.model,
            "seed": seed,
            "instructions": body.instructions,
            "metadata": body.metadata or {},
            "tools": [tool.model_dump(exclude_none=True) for tool in body.tools],
            "tool_choice": body.tool_choice or "auto",
            "parallel_tool_calls": bool(body.functions),
            "temperature": body.temperature,
            "top_p": body.top_p,
            "max_output_tokens": body.max_output_tokens,
            "previous_response_id": None,
            "store": False,
            "text": {"format": {"type": "text"}},
            "truncation": "disabled",
            "error": None,
        }

    def whole(self, pieces: Sequence[Piece], reason: str, counts: Mapping[str, Any]) -> dict[str, Any]:
        for piece in pieces:
            self.events(piece)
        self._close("incomplete" if reason == "length" else "completed")
        return self._response(reason, counts)

    def first(self) -> list[Event]:
        response = self._state("in_progress")
        kinds = ("response.created", "response.in_progress")
        return [self._event(kind, response=response) for kind in kinds]

    def events(self, piece: Piece) -> list[Event]:
        if isinstance(piece, str):
            return [
                *self._opened("message"),
                self._event("response.output_text.delta", delta=piece, **self._say(piece)),
            ]
        if isinstance(piece, ToolCall):
            return self._called(piece)
        events = self._opened("image_generation_call")
        if isinstance(piece, Unfinished):
            self._partials += 1
            partial = {
                "partial_image_b64": encoded_as(self.drawing, piece.image),
                "partial_image_index": self._partials - 1,
                **described_as(self.drawing, piece.image),
            }
            return [*events, self._of_item("image_generation_call.partial_image", **partial)]
        self.output[-1] |= {
            "result": encoded_as(self.drawing, piece),
            **described_as(self.drawing, piece),
        }
        return [*events, *self._close("completed")]

    def last(self, reason: str, counts: Mapping[str, Any]) -> list[Event]:
        events = self._close("incomplete" if reason == "length" else "completed")
        response = self._response(reason, counts)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def _response(self, reason: str, counts: Mapping[str, Any]) -> dict[str, Any]:
        cut = reason == "length"
        usage = {
            "input_tokens": counts["prompt_tokens"],
            "input_tokens_details": counts["prompt_tokens_details"],
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts["total_tokens"],
        }
        details = {"reason": "max_output_tokens"} if cut else None
        return self._state("incomplete" if cut else "completed") | {
            "incomplete_details": details,
            "usage": usage,
        }

    def _state(self, status: str) -> dict[str, Any]:
        return {
            **self.head,
            "status": status,
            "incomplete_details": None,
            "output": list(self.output),
            "usage": None,
        }

    def _say(self, text: str) -> dict[str, Any]:
        self.output[-1]["content"][0]["text"] += text
        return {**self._place(), "content_index": 0, "logprobs": []}

    def _called(self, call: ToolCall) -> list[Event]:
        events = self._close("completed")
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        item = {
            "id": f"fc_{uuid.uuid4().hex}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments,
            "status": "completed",
        }
        self.output.append(item)
        begun = {**item, "arguments": "", "status": "in_progress"}
        place = {"output_index": len(self.output) - 1}
        return [
            *events,
            self._event("response.output_item.added", item=begun, **place),
            self._of_item("function_call_arguments.delta", delta=arguments),
            self._of_item("function_call_arguments.done", arguments=arguments, name=call.name),
            self._event("response.output_item.done", item=item, **place),
        ]

    def _opened(self, kind: str) -> list[Event]:
        """Events that begin an item of a kind, unless one is under way."""
        if self._open and self.output[-1]["type"] == kind:
            return []
        events = self._close("completed")
        self._open, self._partials = True, 0
        id = uuid.uuid4().hex
        if kind == "message":
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self.output.append({"id": f"msg_{id}", "type": kind, "role": "assistant", "content": [part]})
            self.output[-1]["status"] = "in_progress"
            added = {**self.output[-1], "content": []}
            events.append(
                self._event("response.output_item.added", item=added, output_index=len(self.output) - 1)
            )
            return [*events, self._of_item("content_part.added", content_index=0, part=dict(part))]
        self.output.append({"id": f"ig_{id}", "type": kind, "status": "in_progress", "result": None})
        added = dict(self.output[-1])
        events.append(
            self._event("response.output_item.added", item=added, output_index=len(self.output) - 1)
        )
        return [*events, *(self._of_item(f"{kind}.{state}") for state in ("in_progress", "generating"))]

    def _close(self, status: str) -> list[Event]:
        """Events that end the item under way, if there is one."""
        if not self._open:
            return []
        self._open = False
        item = self.output[-1]
        if item["type"] == "message":
            part = item["content"][0]
            item["status"] = status
            events = [
                self._of_item("output_text.done", content_index=0, text=part["text"], logprobs=[]),
                self._of_item("content_part.done", content_index=0, part=part),
            ]
        else:
            item["status"] = "completed"
            events = [self._of_item("image_generation_call.completed")]
        place = len(self.output) - 1
        return [*events, self._event("response.output_item.done", item=item, output_index=place)]

    def _of_item(self, kind: str, **more: Any) -> Event:
        return self._event(f"response.{kind}", **self._place(), **more)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}

    def _event(self, kind: str, **more: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **more}
