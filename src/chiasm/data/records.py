"""Records of conversations as they are commonly written; read alike in data files, by `chat` and in the terminal.

A record is LLaVA's or ShareGPT's (`conversations` of `from` and `value`) or a message list (`messages` of `role`
and `content`). Whatever in it is not understood is an error that names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chiasm.data.placeholders import check_placeholders
from chiasm.data.references import References
from chiasm.data.sample import Media, Message, Picture, Role, Signal
from chiasm.errors import DataError, excerpt, nearest

MARKER = "<image>"
MOST_TURNS = 1_000  # of one record
ROLES: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "document": "document",
}
# Columns that say nothing of what is shown or learnt.
MEANINGLESS = frozenset(
    "id idx index uid uuid image_id question_id conversation_id source data_source dataset dataset_name origin "  # noqa: SIM905
    "task category split license metadata meta model language lang width height".split()
)
LISTS = ("conversations", "messages")
IMAGES = ("images", "image")
ITEM_IMAGES = ("image", "image_url", "url", "path", "base64")
SIGNAL = ("signal", "modality")  # a .npy file of numbers, and whose they are
_RECORD = "an object with 'messages' or 'conversations'"
_TURN = "a mapping with 'role' and 'content', or 'from' and 'value'"
DETAILS = ("auto", "low", "high")  # of OpenAI's images
LEARNT = ("loss", "weight", "train")  # of ms-swift, OpenAI and axolotl


@dataclass(frozen=True)
class RecordReader:
    """Reads a record into messages.

    ignored: keys, at every depth, that carry no meaning; of records and turns beside those in MEANINGLESS.
    placeholders: what stands for an image in another format (`<|image_pad|>`) is words, and no error.
    most_turns: of one record.
    taken: further keys of records, which whoever has it read takes for itself.
    remedy: what to do about an unknown key that carries no meaning; empty where nothing but to leave it out.
    """

    references: References
    ignored: Collection[str] = ()
    placeholders: bool = False
    most_turns: int = MOST_TURNS
    taken: Collection[str] = ()
    remedy: str = ""

    def messages(self, record: Any, where: str) -> tuple[Message, ...]:
        """The messages of a record; raises DataError naming `where`, and the part that is wrong."""
        if isinstance(record, Mapping) and not any(isinstance(record.get(name), list) for name in LISTS):
            raise DataError(f"{where} has neither a list 'messages' nor a list 'conversations'", "turns")
        fields = self._fields(
            record, where, (*LISTS, *IMAGES, "system", "answers", *self.taken), _RECORD, MEANINGLESS
        )
        turns = _one(fields, where, LISTS)
        if len(turns) > self.most_turns:
            raise DataError(
                f"{where} has {len(turns):,} turns; at most {self.most_turns:,} are read (a source's most_turns)",
                "turns",
            )
        images = _one(fields, where, IMAGES)
        listed = images if isinstance(images, list | tuple) else [] if images is None else [images]
        supply = _Supply([self.references.picture(_url(each, where), where) for each in listed], where)
        system = self._system(fields.get("system"), where, supply)
        messages = [self._message(turn, f"{where}, turn {i}", supply) for i, turn in enumerate(turns, 1)]
        supply.check()
        if system and any(message.role in ("system", "document") for message in messages):
            raise DataError(f"{where} has a system field and a turn of role {messages[0].role}", "turns")
        return (*system, *messages)

    def _system(self, text: Any, where: str, supply: _Supply) -> list[Message]:
        """The message of a record's system field."""
        if text is None or text == "":
            return []
        if not isinstance(text, str):
            raise DataError(f"{where} has the system field {excerpt(text)}; it must be text", "content")
        return [Message("system", tuple(self._words(text, f"{where}, system", supply)))]

    def _message(self, turn: Any, where: str, supply: _Supply) -> Message:
        if isinstance(turn, Message):
            return turn
        fields = self._fields(turn, where, ("role", "from", "content", "value", *LEARNT), _TURN, MEANINGLESS)
        name, content = _one(fields, where, ("role", "from")), _one(fields, where, ("content", "value"))
        if name is None or content is None:
            raise DataError(f"{where} is {excerpt(turn)}; it must be {_TURN}", "turns")
        if not isinstance(name, str) or name not in ROLES:
            raise DataError(f"{where} has the role {excerpt(name)!r}{nearest(str(name)[:40], ROLES)}", "role")
        role = ROLES[name]
        parts = content if isinstance(content, list | tuple) else [content]
        items = [
            item
            for part in parts
            for item in self._items(part, role, where, supply, alone=parts is not content)
        ]
        return Message(role, tuple(items), self._learnt(fields, role, items, where))

    def _items(
        self, part: Any, role: Role, where: str, supply: _Supply, *, alone: bool
    ) -> Iterator[str | Media]:
        """Text and pictures of one item of a content, an image before its text; `alone`: it is all of it."""
        if isinstance(part, Signal):
            yield part
        elif isinstance(part, str):
            item = self._string(part, role, where, alone=alone)
            yield from self._words(item, where, supply) if isinstance(item, str) else [item]
        elif isinstance(part, Mapping) and not part.keys().isdisjoint(SIGNAL):
            fields = self._fields(part, where, ("type", *SIGNAL), "an object")
            if fields.get("type") not in (None, "signal"):
                wrong = excerpt(fields["type"])
                raise DataError(f"{where} has a signal of the type {wrong!r}; it must be signal", "content")
            yield self.references.signal(fields.get("signal"), fields.get("modality"), where)
        elif isinstance(part, Mapping):
            fields = self._fields(part, where, ("type", "text", *ITEM_IMAGES, *SIGNAL), "an object")
            kind, text, image = fields.get("type"), fields.get("text"), _one(fields, where, ITEM_IMAGES)
            if kind not in (None, "text", "image", "image_url"):
                raise DataError(
                    f"{where} has content of type {excerpt(kind)!r}; known: text, image", "content"
                )
            if kind == "text" and image is not None:
                raise DataError(
                    f"{where} has content of type 'text' with the image {excerpt(image)}; one of them must go",
                    "content",
                )
            if text is not None and not isinstance(text, str):
                raise DataError(f"{where} has the text {excerpt(text)}; it must be a string", "content")
            if image is not None and image is fields.get("base64"):
                yield self.references.base64(image, where)
            elif image is not None:
                yield self.references.picture(_url(image, where), where)
            elif kind in ("image", "image_url"):
                yield from supply.take()
            elif text is None:
                raise DataError(
                    f"{where} has content {excerpt(part)}; it must be text or an image", "content"
                )
            yield from self._words(text or "", where, supply, item=True)
        elif part is None or isinstance(part, bool | int | float | list | tuple):
            raise DataError(f"{where} has content {excerpt(part)}; it must be text or an image", "content")
        else:
            yield self.references.picture(part, where)

    def _words(self, text: str, where: str, supply: _Supply, *, item: bool = False) -> Iterator[str | Media]:
        """A text with the images that its markers stand for; `item`: it is said to be text, as `{"text": ...}`."""
        if not self.placeholders:
            check_placeholders(text, where, "where it is words, say placeholders: true (a source's option)")
        return supply.fill(text)

    def _string(self, text: str, role: Role, where: str, *, alone: bool) -> str | Picture:
        """What a bare string stands for; `alone`: it is the whole content."""
        return text

    def _learnt(
        self, fields: Mapping[str, Any], role: Role, items: Sequence[str | Media], where: str
    ) -> bool:
        """Whether a turn is learnt, which an assistant's is unless its `loss`, `weight` or `train` says no."""
        value = _one(fields, where, LEARNT)
        if value is None:
            return True
        if value not in (0, 1):
            raise DataError(
                f"{where}: whether it is learnt is {excerpt(value)}; it must be true or false", "turns"
            )
        if value and role in ("user", "system"):
            raise DataError(f"{where} is to be learnt, but only turns of an assistant are", "turns")
        if not value and role == "document":
            raise DataError(f"{where} is a document, which is learnt as a whole", "turns")
        media = next((item for item in items if isinstance(item, Media)), None)
        if not value and role == "assistant" and media is not None:
            what = "a signal" if isinstance(media, Signal) else "an image"
            raise DataError(f"{where} writes {what}, which cannot be left out of what is learnt", "turns")
        return bool(value) or role != "assistant"

    def _fields(
        self, value: Any, where: str, names: Sequence[str], form: str, meaningless: Collection[str] = ()
    ) -> dict[str, Any]:
        """The fields of a mapping that carry a meaning; null means that there is none."""
        if not isinstance(value, Mapping):
            raise DataError(f"{where} is {excerpt(value)}; it must be {form}", "form")
        fields = {}
        for key, content in value.items():
            if content is None or key in meaningless or key in self.ignored:
                continue
            if key not in names:
                raise DataError(
                    f"{where} has the unknown key {excerpt(key)!r}{nearest(str(key)[:40], names)}"
                    + (f"; if it carries no meaning, {self.remedy}" if self.remedy else ""),
                    "unknown key",
                )
            fields[key] = content
        return fields


@dataclass
class _Supply:
    """The images of a record that its markers and placeholders take, one after another."""

    pictures: Sequence[Picture]
    where: str
    used: int = field(default=0)

    def take(self) -> Iterator[Picture]:
        """The next picture; of markers without one, which are an error in the end, none."""
        yield from self.pictures[self.used : self.used + 1]
        self.used += 1

    def fill(self, text: str) -> Iterator[str | Picture]:
        """Text with pictures for its markers; what is empty is left out."""
        check_text(text, self.where)
        first, *rest = text.split(MARKER)
        if first:
            yield first
        for piece in rest:
            yield from self.take()
            if piece:
                yield piece

    def check(self) -> None:
        if self.used != len(self.pictures):
            raise DataError(
                f"{self.where} has {len(self.pictures)} images but {self.used} {MARKER} markers", "markers"
            )


def check_text(text: str, where: str) -> None:
    """Raise DataError for text that no tokenizer takes: half of a letter that JSON wrote in two."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has text with half a letter, {text[error.start]!a}, at place {error.start}", "text"
        ) from None


def _one(fields: Mapping[str, Any], where: str, names: Sequence[str]) -> Any:
    """The value of the one of these fields that there is."""
    present = [name for name in names if name in fields]
    if len(present) > 1:
        raise DataError(f"{where} has both {present[0]!r} and {present[1]!r}; one of them must go", "form")
    return fields[present[0]] if present else None


def _url(image: Any, where: str) -> Any:
    """What an image is named by, also where it stands in an object as OpenAI writes it."""
    if isinstance(image, Mapping):
        detail = image.get("detail")
        if detail is not None and not (isinstance(detail, str) and detail in DETAILS):
            raise DataError(
                f"{where} has an image with the detail {excerpt(detail)}; it must be {', '.join(DETAILS)}, none of "
                "which changes anything: how an image is cut is the recipe's",
                "image form",
            )
        extra = image.keys() - {"url", "path", "detail", "bytes"}
        named = [image[key] for key in ("url", "path") if image.get(key) is not None]
        if len(named) == 1 and not extra and image.get("bytes") is None:
            return named[0]
    return image
