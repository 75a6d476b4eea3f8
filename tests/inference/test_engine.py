"""One engine for requests of every kind: they share passes, and nothing else."""

from copy import deepcopy

import pytest
import torch
from PIL import Image

from chiasm.conversation import Reply, Turn
from chiasm.data.documents import document, draw_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.heads import Sampling
from chiasm.inference.answers import Answers
from chiasm.inference.drawing import Drawing
from chiasm.inference.engine import Engine
from chiasm.inference.text import WordSampling
from chiasm.nn.generators import Generators
from passes import reads

QUESTIONS = [
    "What is this?",
    "How many dogs are there in the picture, and where is each of them?",
    "Draw: a dog.",
]


@pytest.fixture
def model(tiny_model):
    """With larger weights, so that what it answers depends on what it is asked, and words that begin an image now
    and then."""
    model = deepcopy(tiny_model[0])
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(4)
    often_draws(model)
    return model


def often_draws(model, bias=5.0):
    logits = model.language.logits
    model.language.logits = lambda hidden: logits(hidden).index_add(
        -1, torch.tensor([model.language.tokenizer.draw]), torch.full((*hidden.shape[:-1], 1), bias)
    )


def image(seed):
    pixels = torch.randint(
        0, 256, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Image.fromarray(pixels.numpy()).resize((32, 32))


def prompts(model, texts, **options):
    samples = [Sample(text, (Message("user", (text,)),)) for text in texts]
    return [document(model.contract, sample, prompt=True, **options) for sample in samples]


def pieces(reply):
    return [item if isinstance(item, str) else item.tobytes() for item in reply.content]


def talk(question, **options):
    """A conversation, as what to hand an engine in and how to look at what comes of it."""

    def submit(engine):
        turn = Turn(engine.model, question, engine=engine, **options)
        return lambda: pieces(gathered(turn))

    return submit


def gathered(turn):
    reply = Reply()
    for piece in turn:
        reply.add(piece)
    return reply


def ask(texts, **options):
    def submit(engine):
        handle = engine.submit(Answers(engine.model, prompts(engine.model, texts), **options))
        return handle.result

    return submit


def draw(texts, sampling):
    def submit(engine):
        samples = [Sample(text, (Message("user", (text,)),)) for text in texts]
        documents = [draw_prompt(engine.model.contract, sample) for sample in samples]
        handle = engine.submit(Drawing(engine.model, documents, sampling, Generators(range(len(texts)))))
        return lambda: handle.result().tolist()

    return submit


MIXED = [
    talk(QUESTIONS[0], tokens=9),
    ask(QUESTIONS, tokens=6),
    draw(["a dog", "a cat at the top left"], Sampling(guidance=3.0, temperature=0.0)),
    talk([{"role": "user", "content": [image(1), QUESTIONS[1]]}], tokens=12, guidance=2.0, seed=3),
    ask(QUESTIONS[:1], tokens=20, sampling=WordSampling(temperature=1.0, top_p=0.9), seeds=[7]),
    draw(["a cat"], Sampling(temperature=1.0, top_k=9)),
    talk(QUESTIONS[2], tokens=5, word_temperature=2.0, word_top_k=20, repetition_penalty=1.5, seed=1),
    talk(QUESTIONS[1], tokens=12, guidance=1.0, temperature=0.0),
]


@pytest.fixture(scope="module")
def alone():
    """What each of the requests gets in an engine of its own."""
    results = []

    def of(model):
        if not results:
            results.extend(submit(Engine(model))() for submit in MIXED)
        return results

    return of


@pytest.mark.parametrize("ticks", [0, 1, 4])
def test_requests_of_all_kinds_get_together_what_each_gets_alone(model, alone, ticks):
    """However many ticks lie between their coming."""
    expected = alone(model)
    engine, together = Engine(model), []
    for submit in MIXED:
        together.append(submit(engine))
        for _ in range(ticks):
            engine.tick()
    assert [result() for result in together] == expected
    assert any(isinstance(piece, bytes) for result in expected for piece in result)  # some conversation draws


def test_a_request_waits_where_there_is_no_room_for_its_rows(model, alone):
    expected = alone(model)
    engine, most = Engine(model, rows=3), []
    results = [submit(engine) for submit in MIXED]
    while engine.tick():
        most.append(sum(handle.request.rows for handle in engine._active))
    assert [result() for result in results] == expected
    assert max(most) == 4  # one that wants more than there are runs alone
    assert len(set(most)) > 1


def test_one_tick_is_one_pass(model):
    """The longest request takes nearly as many ticks alone as all do together."""
    passes = []
    model.language.register_forward_hook(lambda *_: passes.append(1))
    engine, ticks = Engine(model), 0
    for submit in MIXED:
        submit(engine)
    going = True
    while going:
        going, ticks = engine.tick(), ticks + 1
        assert len(passes) <= ticks
    together, longest = len(passes), 0
    for submit in MIXED:
        passes.clear()
        submit(Engine(model))()
        longest = max(longest, len(passes))
    assert together <= longest + 4  # those in which others' prompts were read


def test_the_cache_does_not_grow_with_the_requests_that_have_gone(model):
    """One after another comes while one before it is still there."""
    engine, columns = Engine(model), []
    for _ in range(40):
        ask(QUESTIONS[:1], tokens=6)(engine)
        for _ in range(4):
            engine.tick()
        columns.append(engine._session.columns)
    assert max(columns) == max(columns[:8])


def begins_an_image_after(model, words):
    """Have every answer's words be followed by an image, and that by more words."""
    chosen, logits = [], model.text_logits

    def forced(hidden, images=True):
        chosen.append(1)
        wanted = torch.tensor([model.language.tokenizer.draw])
        bias = 1e4 if len(chosen) == words + 1 else -1e4
        return logits(hidden, images=images).index_add(-1, wanted, torch.full((len(hidden), 1), bias))

    model.text_logits = forced
    return model


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_conversation_that_draws_reads_no_position_twice(model, guidance):
    """But for guidance's rows without a prompt, which read the empty prompt and the image."""
    read = reads(begins_an_image_after(model, 3))
    turn = Turn(model, QUESTIONS[1], tokens=8, guidance=guidance, temperature=0)
    reply = gathered(turn)
    assert [type(item) for item in reply.content] == [str, Image.Image, str]
    document = turn._handle.request.document
    assert model.language.tokenizer.ends.isdisjoint(
        document.ids[-1:]
    )  # it was cut, its last word is not read
    alone = sum(rows[0] for rows in read if len(rows) == 1)
    both = [rows for rows in read if len(rows) == 2]
    assert alone + sum(rows[0] for rows in both) == len(document) - 1 + (2 if guidance > 1 else 0)
    assert sum(rows[1] for rows in both) == (0 if guidance == 1 else model.contract.span.length - 1)


class Unreadable(PictureInMemory):
    """An image that is there when its size is asked for, and gone when it is read."""

    def open(self):
        raise DataError("image gone.png is not there any more")


def test_a_request_that_fails_takes_nobody_with_it(model, alone):
    """Because of an image that is gone, at its first pass, or at a later one."""
    expected = alone(model)
    forward = model.language.forward
    poison = torch.full((model.language.width,), 7.0)

    def fails(embeddings, layout, cache=None):
        if bool((embeddings == poison).all(-1).any()):
            raise RuntimeError("out of memory")
        return forward(embeddings, layout, cache)

    model.language.forward = fails
    embed = model.language.embed
    model.language.embed = lambda ids: torch.where((ids == 7)[..., None], poison, embed(ids))
    gone = talk([{"role": "user", "content": [Unreadable(image(2)), "What is this?"]}])

    def breaks_later(engine):
        """At its third word, which cannot be read."""
        request = Answers(engine.model, prompts(engine.model, QUESTIONS[:1]), tokens=9)
        choose = request._choose

        def poisoned(rows, hidden):
            choose(rows, hidden)
            request.ids[0][-1] = 7 if len(request.ids[0]) == 3 else 20

        request._choose = poisoned
        return engine.submit(request).result

    def breaks_at_once(engine):
        prompt = prompts(engine.model, ["x"])[0]
        prompt.ids[0] = 7
        return engine.submit(Answers(engine.model, [prompt], tokens=3)).result

    faulty = {gone: DataError, breaks_later: RuntimeError, breaks_at_once: RuntimeError}
    engine = Engine(model)
    submits = [*faulty, *MIXED[:4], breaks_later, *MIXED[4:]]
    results = [submit(engine) for submit in submits]
    engine.run()
    kept = [result for submit, result in zip(submits, results, strict=True) if submit not in faulty]
    assert [result() for result in kept] == expected
    for submit, result in zip(submits, results, strict=True):
        if submit in faulty:
            with pytest.raises(faulty[submit]):
                result()


def test_an_error_of_its_head_is_the_requests_own(model):
    model.image_head.unconditional = 0
    engine = Engine(model)
    guided = draw(["a dog"], Sampling(guidance=2.0))(engine)
    plain = draw(["a dog"], Sampling(temperature=0.0))(engine)
    expected = draw(["a dog"], Sampling(temperature=0.0))(Engine(model))()
    assert plain() == expected
    with pytest.raises(ChiasmError, match="guidance"):
        guided()


@pytest.mark.parametrize("stops", [range(1, 60, 4), range(2, 60, 7)])
def test_whatever_stops_a_tick_the_next_goes_on(model, alone, stops):
    """In a pass, and between passes; words, images and conversations alike."""
    expected = alone(model)
    engine, passes = Engine(model), []

    def stop(*_):
        passes.append(1)
        if len(passes) in stops:
            raise KeyboardInterrupt

    before = model.language.register_forward_pre_hook(stop)
    layer = model.language.inner.model.layers[1].register_forward_hook(stop)
    results = [submit(engine) for submit in MIXED]
    stopped = 0
    while engine._active or engine._waiting:
        try:
            engine.tick()
        except KeyboardInterrupt:
            stopped += 1
    before.remove()
    layer.remove()
    assert stopped == len(stops)
    assert [result() for result in results] == expected


def test_prompts_that_are_equal_are_read_once(model):
    """Four images of one prompt, guided: two rows are read, and the images are those of four."""
    sample = Sample("a prompt", (Message("user", ("a dog",)),))
    prompts = [draw_prompt(model.contract, sample) for _ in range(4)]
    sampling = Sampling(guidance=1.5)
    alone = [
        Engine(model).submit(Drawing(model, [prompt], sampling, Generators([seed]))).result()
        for seed, prompt in enumerate(prompts)
    ]
    read = reads(model)
    together = Engine(model).submit(Drawing(model, prompts, sampling, Generators(range(4)))).result()
    assert len(read[0]) == 2
    assert torch.equal(together, torch.cat(alone))
