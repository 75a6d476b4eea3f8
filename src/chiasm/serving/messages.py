"""Messages of a request to ours: nothing in them names a file of the server's, and no address is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chiasm.data.files import PictureBytes, picture_of_base64
from chiasm.data.sample import Message, Picture, Role
from chiasm.errors import DataError, excerpt
from chiasm.serving.schema import ChatMessage, ImagePart

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def messages_of(given: Sequence[ChatMessage], *, most_images: int) -> list[Message]:
    """Raises DataError naming a message that holds nothing, an image that cannot be read, or one too many."""
    images = 0
    messages = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        content = tuple(_content(message, where))
        images += sum(isinstance(item, Picture) for item in content)
        if images > most_images:
            raise DataError(f"{where}: more than {most_images} images in one request")
        if not content:
            raise DataError(f"{where} is empty")
        messages.append(Message(ROLES[message.role], content))
    if messages[-1].role != "user":
        raise DataError(f"the last message is of the role {given[-1].role!r}; there is nothing to answer")
    return messages


def _content(message: ChatMessage, where: str) -> Iterator[str | Picture]:
    if isinstance(message.content, str):
        if message.content:
            yield message.content
    else:
        for number, part in enumerate(message.content or ()):
            place = f"{where}.content[{number}]"
            if isinstance(part, ImagePart):
                yield image_of(part.image_url.url, place)
            elif part.text:
                yield part.text
    if message.images and message.role != "assistant":
        raise DataError(
            f"{where}.images: only an answer of the model has them; images of a user are parts of content"
        )
    for number, part in enumerate(message.images or ()):
        yield image_of(part.image_url.url, f"{where}.images[{number}]")


def image_of(url: str, where: str) -> PictureBytes:
    """The image that a request holds; raises DataError naming `where`."""
    if not url[:5].lower() == "data:":
        raise DataError(
            f"{where}: {excerpt(url)} is not fetched; send the image itself, as data:image/png;base64,..."
        )
    picture = picture_of_base64(url, where)
    picture.size  # noqa: B018 - read here, so that what is no image is refused before it waits
    return picture
