"""Answering in words and in pictures: the loops that drive a model with its key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from chiasm.data.documents import PictureReader, document, draw_prompt, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.devices import fitting
from chiasm.errors import ChiasmError, DataError, excerpt
from chiasm.generators import Generators, check_count, seeds_of
from chiasm.heads import Ask, DrawingState, Sampling, finish
from chiasm.kernels import in_use
from chiasm.layout import Layout
from chiasm.sequence import Document, Kind, pack

if TYPE_CHECKING:
    from chiasm.language.text import TextTokenizer
    from chiasm.model import Model
    from chiasm.recipe import SamplingOptions

TOGETHER = 64  # most pictures drawn at a time
NOWHERE = ((0, 0, 0),)  # the coordinates of a position that is in no image


class Session:
    """Documents read into a key-value cache, one a row, to be continued position by position.

    last: hidden states of each row's last position.
    """

    def __init__(self, model: Model, documents: Sequence[Document], reader: PictureReader | None = None):
        self.model = model
        batch, slots = pack([[each] for each in documents])
        batch = (reader or PictureReader(model.contract)).attach(batch, slots).to(model.device)
        embeddings, self.layout, _ = model.embed(batch)
        self.open = bool(((batch.documents >= 0) & batch.exposed).all())  # nothing hides
        self.cache = model.language.new_cache()
        self.lengths = torch.tensor([len(each) for each in documents], device=model.device)
        hidden = model.language(embeddings, self.layout, self.cache)
        rows = torch.arange(len(documents), device=model.device)
        self.last: Float[Tensor, "n d"] = hidden[rows, self.lengths - 1]

    def step(
        self,
        embeddings: Float[Tensor, "n s d"],
        kind: Kind,
        opens: Sequence[bool],
        exposed: Sequence[bool],
        coordinates: Sequence[tuple[int, int, int]] = (),
        *,
        keep: bool = True,
    ) -> Float[Tensor, "n s d"]:
        """Append s positions to every row and return their hidden states; without `keep` they are forgotten."""
        rows, count = embeddings.shape[:2]
        device = embeddings.device
        kinds = torch.full((rows, count), int(kind), device=device)
        added = Layout(
            torch.zeros_like(kinds),
            torch.tensor(opens, device=device).expand(rows, -1),
            torch.tensor(exposed, device=device).expand(rows, -1),
            kinds=kinds,
            positions=self.lengths[:, None] + torch.arange(count, device=device),
            coordinates=torch.tensor(coordinates or NOWHERE * count, device=device).expand(rows, -1, -1),
        )
        layout = self.layout.extended(added, clear=self.open and all(exposed) and not any(opens[1:]))
        hidden = self.model.language(embeddings, layout, self.cache)
        if keep:
            self.layout, self.lengths, self.last = layout, self.lengths + count, hidden[:, -1]
            self.open = self.open and all(exposed)
        else:
            self.model.language.forget(self.cache, count)
        return hidden

    def step_text(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        return self.step(self.model.language.embed(ids[:, None]), Kind.TEXT, [True], [True])[:, -1]


class Answer(str):
    """The text of an answer. cut: a limit (of tokens, or the context) came before its end."""

    cut: bool = False

    @classmethod
    def of(cls, text: str, *, cut: bool) -> Answer:
        answer = cls(text)
        answer.cut = cut
        return answer


@in_use
def answers(
    model: Model,
    samples: Sequence[Sample],
    *,
    tokens: int = 32,
    reader: PictureReader | None = None,
    documents: Sequence[Document] | None = None,
) -> list[Answer]:
    """Greedy answers in words to a batch of questions (samples that end with the user's message)."""
    tokenizer = model.language.tokenizer
    asked = documents or [document(model.contract, sample, prompt=True) for sample in samples]
    session = Session(model, asked, reader)
    limits = (model.language.context - session.lengths).clamp(max=tokens)
    ids = model.said(session.last, pictures=False).argmax(-1)
    made = [ids]
    done = _ended(tokenizer, made) | (limits <= 1)
    while not bool(done.all()):
        # A row that is done goes along with the others; it stays where there are positions.
        session.lengths = session.lengths.clamp(max=model.language.context - 1)
        ids = model.said(session.step_text(ids), pictures=False).argmax(-1)
        ids = torch.where(done, tokenizer.end, ids)
        made.append(ids)
        done |= _ended(tokenizer, made) | (limits <= len(made))
    rows = zip(torch.stack(made, 1).tolist(), limits.tolist(), strict=True)
    ended = [tokenizer.answer(row[: max(limit, 1)]) for row, limit in rows]
    return [Answer.of(text.strip(), cut=not whole) for text, whole in ended]


def _ended(tokenizer: TextTokenizer, made: Sequence[Int[Tensor, " n"]]) -> Bool[Tensor, " n"]:
    """Which rows' answers end with their last token."""
    ended = torch.isin(made[-1], torch.tensor(sorted(tokenizer.ends), device=made[-1].device))
    if tokenizer.end_text:
        rows = torch.stack(list(made), 1).tolist()
        ended |= torch.tensor([tokenizer.answer(row)[1] for row in rows], device=ended.device)
    return ended


class DrawStep:
    """Reads what a drawing asks for: rows of a session that continue with the positions of one image."""

    def __init__(self, session: Session):
        assert session.model.image_head is not None
        self.session, self.head = session, session.model.image_head
        self.start = fitting(session.last, self.head)
        self.done = 0
        self.layout = self.head.layout()
        positions = session.layout.documents.shape[1] + self.layout.length
        session.model.language.expect(session.cache, positions)

    def __call__(self, ask: Ask) -> Float[Tensor, "r s d"]:
        begin, end = self.done, self.done + ask.embeddings.shape[1]
        self.done = end if ask.keep else begin
        hidden = self.session.step(
            ask.embeddings.to(self.session.last.dtype),
            Kind.WRITTEN,
            self.layout.opens[begin:end],
            self.layout.exposed[begin:end],
            self.layout.coordinates[begin:end],
            keep=ask.keep,
        )
        return fitting(hidden, self.head)


@in_use
def draw(
    model: Model,
    prompts: Sequence[Document],
    sampling: Sampling,
    *,
    generators: Generators | None = None,
    reader: PictureReader | None = None,
    progress: DrawingState | None = None,
) -> Int[Tensor, "n gh gw"]:
    """Codes of one image behind each prompt document (`draw_prompt`).

    progress: notes how far the images have got, and where to go on.
    """
    if model.image_head is None:
        raise ChiasmError("this model has no image head: it cannot draw")
    documents = list(prompts)
    if sampling.guidance != 1:
        documents += [without_prompt(model.contract, each) for each in prompts]
    step = DrawStep(Session(model, documents, reader))
    return finish(model.image_head.write(step.start, sampling, generators, progress), step)


def generate(
    model: Model,
    prompt: str | Sequence[str],
    *,
    count: int = 1,
    seed: int | Sequence[int] = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
) -> list[Image.Image]:
    """Pictures of each prompt, which depend on it and on their seed alone, not on the prompts beside it.

    count: pictures of each prompt, one behind another: of its seed, the seed after it, and so on.
    seed: of every prompt, or a list with one for each.
    Raises ChiasmError for an option out of range.
    """
    prompts = _prompts(prompt)
    options = sampling_of(model, guidance=guidance, temperature=temperature, top_k=top_k)
    seeds = seeds_of(seed, len(prompts), check_count(count))
    contract = model.contract  # a part alone has none, and says so
    if model.image_head is None:
        raise ChiasmError("this model has no image head: it cannot draw")
    samples = [Sample(f"prompt {i}", (Message("user", (text,)),)) for i, text in enumerate(prompts)]
    documents = [draw_prompt(contract, sample) for sample in samples for _ in range(count)]
    return draw_images(model, documents, seeds, options.of_images)


def draw_images(
    model: Model, prompts: Sequence[Document], seeds: Sequence[int], sampling: Sampling
) -> list[Image.Image]:
    """One picture behind each prompt document, each with its seed."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), TOGETHER):
        some = slice(start, start + TOGETHER)
        generators = Generators(seeds[some])
        codes = draw(model, prompts[some], sampling, generators=generators)
        images += to_pictures(decode(model, codes, generators))
    return images


@in_use
def decode(model: Model, codes: Tensor, generators: Generators | None = None) -> Float[Tensor, "n 3 h w"]:
    """Pixels of pictures given by their codes, one after another.

    In a batch the last bits of a convolution depend on how many pictures there are, and now and then a byte with
    them: decoded alone a picture is the same whatever is drawn beside it.
    """
    assert model.image_decoder is not None
    pixels = []
    for i, each in enumerate(codes.split(1)):
        own = None if generators is None else Generators(generators.seeds[i : i + 1])
        pixels.append(model.image_decoder.decode(each, generators=own))
    return torch.cat(pixels) if pixels else model.image_decoder.decode(codes)


def to_pictures(pixels: Float[Tensor, "n 3 h w"]) -> list[Image.Image]:
    bytes_ = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return [Image.fromarray(rearrange(each, "c h w -> h w c").contiguous().numpy()) for each in bytes_]


def sampling_of(model: Model, *, tokens: int | None = None, **options: Any) -> SamplingOptions:
    """The recipe's sampling settings with the caller's options laid over them.

    Raises ChiasmError naming an option that is out of range.
    """
    from chiasm.recipe import SamplingOptions

    base = model.sampling or SamplingOptions()
    changed = {key: value for key, value in {**options, "answer_tokens": tokens}.items() if value is not None}
    try:
        return SamplingOptions.model_validate({**base.model_dump(), **changed}, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]).replace("answer_tokens", "tokens")
        raise ChiasmError(f"{name}: {problem['msg'].lower()}, not {problem['input']!r}") from None


def _prompts(prompt: str | Sequence[str]) -> list[str]:
    prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    for i, each in enumerate(prompts):
        if not isinstance(each, str):
            raise DataError(f"prompt {i + 1} is {excerpt(each)}; it must be text")
        if not each.strip():
            raise DataError(f"prompt {i + 1} is empty: there is nothing to draw")
    return prompts
