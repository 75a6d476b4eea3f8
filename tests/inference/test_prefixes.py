"""Documents that begin alike: their beginning is read once, and what each is answered is what it gets alone."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from PIL import Image

from chiasm.data.documents import document
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import DataError
from chiasm.inference import prefixes
from chiasm.inference.answers import Answers
from chiasm.inference.conversation import Conversation
from chiasm.inference.engine import Engine
from chiasm.inference.options import sampling_of
from chiasm.inference.prefixes import LEAST, DocumentContent
from chiasm.inference.reading import CodedImage
from chiasm.inference.session import Session
from chiasm.sequence import Document
from chiasm.sequence.documents import COLUMNS
from passes import reads

SYSTEM = "You work in a shop that sells animals and trees of all kinds, and answer in a few words."


@pytest.fixture
def model(tiny_model):
    """With larger weights, so that what it answers depends on what it is asked; in double precision, so that
    rounding decides nothing."""
    model = deepcopy(tiny_model[0]).double()
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def image(seed):
    pixels = torch.randint(
        0, 256, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return PictureInMemory(Image.fromarray(pixels.numpy()).resize((32, 32)))


def shop(question, seed=1):
    """A long beginning with an image, and a question."""
    return [Message("system", (SYSTEM,)), Message("user", (image(seed), question))]


def prompt(model, messages):
    return document(model.contract, Sample("a prompt", tuple(messages)), prompt=True)


def ask(model, messages, tokens=6):
    return Answers(model, [prompt(model, messages)], tokens=tokens)


def converse(model, messages, tokens=6, **options):
    sampling = sampling_of(model, tokens=tokens, **options)
    return Conversation(model, prompt(model, messages), sampling, seed=0)


def test_requests_that_begin_alike_get_together_what_each_gets_alone_and_their_beginning_is_read_once(model):
    questions = [f"What stands beside number {number}?" for number in range(5)]
    alone = [Engine(model).submit(ask(model, shop(each))).result() for each in questions]
    read, engine = reads(model), Engine(model, prefixes=1000)
    handles = [engine.submit(ask(model, shop(each))) for each in questions]
    assert [handle.result() for handle in handles] == alone
    assert len(set(map(tuple, alone))) > 1
    lengths = [len(prompt(model, shop(each))) for each in questions]
    reused = [handle.request.reused for handle in handles]
    assert sum(read[0]) == lengths[0]
    assert sum(read[1]) == sum(lengths[1:]) - sum(reused)
    assert reused[0] == 0
    assert min(reused[1:]) > model.contract.read_tokens(image(1).size, "an image") + LEAST


def says(model, text, *ids):
    """Have every answer be a text and tokens behind it, drawn images not counted."""
    tokenizer, logits, chosen = model.language.tokenizer, model.text_logits, []
    script = [*tokenizer.encode(text), *ids]

    def scripted(hidden, images=True):
        chosen.append(script[len(chosen)])
        wanted = torch.full_like(logits(hidden, images=images), -1e4)
        return wanted.index_fill(-1, torch.tensor(chosen[-1:]), 1e4)

    model.text_logits = scripted
    return lambda: setattr(model, "text_logits", logits)


def test_a_turn_begins_with_all_of_the_turns_before_it(model):
    """What was answered is not read again either, an image in it neither."""
    tokenizer, first = model.language.tokenizer, shop("Draw: a dog.")
    as_before = says(model, "a dog", tokenizer.draw, min(tokenizer.ends))
    engine = Engine(model, prefixes=1000)
    *words, drawn = engine.submit(turn := converse(model, first, tokens=40, guidance=1.0))
    as_before()
    picture = turn.document.slots[-1].picture
    again = CodedImage(PictureInMemory(drawn), picture.codes.clone())  # as it comes back from a client
    second = [*first, Message("assistant", ("".join(words), again)), Message("user", ("And where is it?",))]
    handle = engine.submit(ask(model, second))
    assert handle.result() == Engine(model).submit(ask(model, second)).result()
    assert handle.request.reused == len(turn.document)


def test_what_is_reused_of_a_request_is_of_its_prompt_and_not_of_what_its_answer_reads(model, monkeypatch):
    """Guidance reads rows without the prompt, one for each image, whose beginnings are cached too."""
    monkeypatch.setattr(prefixes, "LEAST", 1)  # for these rows are short
    tokenizer, engine = model.language.tokenizer, Engine(model, prefixes=1000)
    for words in ("Draw: a dog.", "Draw: a cat."):
        as_before = says(model, "two", tokenizer.draw, tokenizer.draw, min(tokenizer.ends))
        reused, handle = engine.prefixes.reused, engine.submit(converse(model, shop(words), 40, guidance=2.0))
        cached = engine.prefixes.of(DocumentContent.of(prompt(model, shop(words)))).length
        assert sum(isinstance(each, Image.Image) for each in handle) == 2
        as_before()
        assert handle.request.reused == cached
    assert cached > 1
    assert engine.prefixes.reused - reused > cached  # of the rows of guidance


def test_another_image_is_another_beginning(model):
    engine = Engine(model, prefixes=1000)
    engine.submit(ask(model, shop("What is this?"))).result()
    handle = engine.submit(ask(model, shop("What is this?", seed=2)))
    alone = Engine(model).submit(ask(model, shop("What is this?", seed=2))).result()
    assert handle.result() == alone
    start = prompt(model, shop("What is this?")).slots[0].start
    assert handle.request.reused == (start if start >= LEAST else 0)


def test_no_more_positions_are_kept_than_may_be_and_those_used_last_stay(model):
    def messages(word):
        return [Message("system", (f"{word} {SYSTEM}",)), *shop("What is this?")[1:]]

    engine = Engine(model, prefixes=2 * len(prompt(model, messages("three"))) + 5)

    def known(word):
        handle = engine.submit(ask(model, messages(word), tokens=1))
        handle.result()
        return handle.request.reused > 0

    assert [known("one"), known("two")] == [False, False]
    assert known("one")
    assert not known("three")  # for which the second has gone
    assert [known("one"), known("three"), known("two")] == [True, True, False]


class Unreadable(PictureInMemory):
    """An image that is there when its size is asked for, and gone when it is read."""

    def open(self):
        raise DataError("image gone.png is not there any more")


def test_one_that_fails_or_is_withdrawn_leaves_nothing_wrong_behind(model):
    questions = [f"What stands beside number {number}?" for number in range(3)]
    alone = [Engine(model).submit(ask(model, shop(each))).result() for each in questions]
    engine = Engine(model, prefixes=1000)
    gone = [shop("")[0], Message("user", (Unreadable(image(1).image), "What is this?"))]
    faulty = engine.submit(ask(model, gone))
    withdrawn = engine.submit(converse(model, shop(questions[0])))
    handles = [engine.submit(ask(model, shop(each))) for each in questions]
    engine.tick()
    engine.withdraw(withdrawn)
    assert [handle.result() for handle in handles] == alone
    with pytest.raises(DataError, match="gone"):
        faulty.result()


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_whatever_stops_a_pass_what_was_read_serves_as_before(model, stop):
    questions = [f"What stands beside number {number}?" for number in range(3)]
    alone = [Engine(model).submit(ask(model, shop(each))).result() for each in questions]
    engine, passes = Engine(model, prefixes=1000), []

    def interrupt(*_):
        passes.append(1)
        if len(passes) == stop:
            raise KeyboardInterrupt

    model.language.inner.model.layers[1].register_forward_hook(interrupt)
    handles = [engine.submit(ask(model, shop(each))) for each in questions]
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    engine.run()
    assert [handle.result() for handle in handles] == alone


def content(opens, ids=None, exposed=None):
    length = len(opens)
    columns = [ids or list(range(length)), [0] * length, [0] * length, opens, exposed or [True] * length]
    return DocumentContent.of(Document("a document", **dict(zip(COLUMNS, columns, strict=True))))


def test_a_beginning_ends_where_a_block_opens():
    """Within a block all see each other, what is read last too."""
    causal = content([True] * 6)
    assert causal.shared(content([True] * 4)) == 4  # all of the other
    assert causal.shared(causal) == 5  # one position is left to read
    assert content([True] * 3).shared(causal) == 2
    block = content([True, True, False, False, True, True])
    assert block.shared(content([True, True, False, False], ids=[0, 1, 2, 9])) == 1
    assert block.shared(content([True, True, False])) == 1  # the block is longer here
    assert block.shared(content([True, True, False, False])) == 4
    assert causal.shared(content([True] * 6, exposed=[True, True, False, True, True, True])) == 2
    assert causal.shared(content([True] * 6, ids=[9, 1, 2, 3, 4, 5])) == 0


def test_an_image_is_shared_whole_or_not_at_all(model):
    one, other = (DocumentContent.of(prompt(model, shop(each))) for each in ("What?", "Where?"))
    slot = prompt(model, shop("What?")).slots[0]
    assert one.shared(other) >= slot.start + slot.length
    inside = DocumentContent.of(prompt(model, shop("What?")), slot.start + 2)
    assert one.shared(inside) == slot.start


@pytest.mark.parametrize("reason", ["nothing is kept", "the language cannot"])
def test_where_nothing_can_be_shared_each_is_read_by_itself(model, reason):
    model.language.shares_prefixes = reason != "the language cannot"
    engine = Engine(model, prefixes=0 if reason == "nothing is kept" else 1000)
    handles = [engine.submit(ask(model, shop(each))) for each in ("What is this?", "Where is it?")]
    read = reads(model)
    engine.run()
    assert sum(read[0]) == sum(len(prompt(model, shop(each))) for each in ("What is this?", "Where is it?"))
    assert [handle.request.reused for handle in handles] == [0, 0]


class Gone(PictureInMemory):
    """An image whose file went away before anything of it was read."""

    def __init__(self, size):
        self.size = size

    @property
    def key(self):
        raise DataError("image gone.png is not there any more")


def test_an_image_that_cannot_be_told_from_others_takes_nobody_with_it(model):
    alone = Engine(model).submit(ask(model, shop("What is this?"))).result()
    engine = Engine(model, prefixes=1000)
    prompts = [prompt(model, shop("What is this?")) for _ in range(2)]
    slot = prompts[0].slots[0]
    prompts[0].slots[0] = replace(slot, picture=Gone(slot.picture.size))
    faulty, good = (engine.submit(Answers(model, [each], tokens=6)) for each in prompts)
    assert good.result() == alone
    with pytest.raises(DataError, match="gone"):
        faulty.result()


def test_where_memory_ends_an_answer_stands_and_nothing_is_kept(model, monkeypatch):
    engine = Engine(model, prefixes=1000)
    engine.submit(ask(model, shop("What is this?"))).result()

    def full(session, row, length):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Session, "prefix", full)
    other = ask(
        model, [Message("user", ("Another beginning, as long as is needed to be worth keeping at all.",))]
    )
    assert engine.submit(other).result()
    assert engine.prefixes.of(DocumentContent.of(prompt(model, shop("What is that?")))).length == 0


def test_what_goes_on_is_read_apart_from_what_begins(model, monkeypatch):
    """An encoder-decoder reads no prompt behind a cache, were it empty."""
    counts = []
    read_on = Session.read_on
    monkeypatch.setattr(
        Session, "read_on", lambda session, rows: (counts.append(len(session)), read_on(session, rows))[1]
    )
    engine = Engine(model, prefixes=1000)
    engine.submit(ask(model, shop("What is this?"))).result()
    fresh = prompt(model, [Message("user", ("What?",))])
    known = [prompt(model, shop(each)) for each in ("What is that?", "Where is it?")]
    documents = [known[0], fresh, known[1]]
    alone = [Engine(model).submit(Answers(model, [each], tokens=6)).result()[0] for each in documents]
    assert engine.submit(Answers(model, documents, tokens=6)).result() == alone
    assert counts == [1, 1]
