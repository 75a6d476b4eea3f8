"""Images to files, and to the terminal as coloured half blocks."""

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.text import Text

from chiasm.terminal.files import save_next


def save_picture(image: Image.Image, folder: Path) -> Path:
    """Save as the next free picture-NNN.png of a folder; the words that it was drawn after stand in the file."""
    notes = PngInfo()
    if caption := image.info.get("caption"):
        notes.add_itxt("Description", caption)
    return save_next(folder, "picture", "png", lambda file: image.save(file, "PNG", pnginfo=notes))


def words_of(image: Image.Image) -> str:
    """What a line that names an image says of the words after which it was drawn; "" = of none."""
    caption = image.info.get("caption")
    return "" if caption is None else f"  after: {caption}"


def preview(image: Image.Image, columns: int = 36) -> Text:
    """The image in half blocks: two pixels, one above the other, in each character."""
    rows = max(1, round(columns * image.height / image.width / 2))
    small = image.convert("RGB").resize((columns, rows * 2), Image.Resampling.LANCZOS)
    text = Text()
    for row in range(rows):
        for column in range(columns):
            upper = "#{:02x}{:02x}{:02x}".format(*small.getpixel((column, 2 * row)))  # type: ignore[misc]
            lower = "#{:02x}{:02x}{:02x}".format(*small.getpixel((column, 2 * row + 1)))  # type: ignore[misc]
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n")
    return text
