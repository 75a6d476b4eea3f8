"""Answering and drawing."""

import re
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from PIL import Image

from chiasm.conversation import Reply, Turn
from chiasm.data.documents import document, draw_prompt, prompt_of
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError, quoted
from chiasm.heads import GREEDY, Sampling
from chiasm.heads.sampling import choose
from chiasm.inference import drawing
from chiasm.inference.answers import Answers, answers
from chiasm.inference.drawing import draw
from chiasm.inference.engine import Engine
from chiasm.inference.session import Session
from chiasm.language.key_values import KeyValues
from chiasm.nn.generators import Generators
from chiasm.sequence import Document, Kind, pack


def asked(world, count=6):
    samples = [s for i in range(count) for s in world[i] if s.truth["task"] in ("what", "count", "words")]
    return [prompt_of(sample) for sample in samples[:count]]


def lively(tiny_model):
    """The model with larger weights, so that what is drawn depends on the prompt, as of a trained one."""
    model = deepcopy(tiny_model[0])
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def test_cached_steps_equal_the_whole_sequence(tiny_model):
    """Prompts of different lengths in one session, continued token by token, against one full pass each."""
    model, world = tiny_model
    prompts = [document(model.contract, sample, prompt=True) for sample in asked(world)]
    assert len({len(prompt) for prompt in prompts}) > 1
    follow = torch.randint(0, 300, (len(prompts), 5))
    with torch.no_grad():
        session = Session(model, prompts)
        stepped = [session.last] + [session.step_text(follow[:, i]) for i in range(5)]
        for row, prompt in enumerate(prompts):
            size = len(prompt)
            prompt.add_text(follow[row].tolist(), learn=False)
            batch, slots = pack([[prompt]])
            batch = PictureReader(model.contract).attach(batch, slots)
            whole = model.language(*model.embed(batch)[:2])[0, size - 1 :]
            torch.testing.assert_close(torch.stack([s[row] for s in stepped]), whole, atol=1e-5, rtol=1e-4)


def test_an_answer_has_the_room_of_its_own_prompt(tiny_model):
    """Beside a prompt that leaves two positions of the context, a short one is answered as alone."""
    model = lively(tiny_model)
    end = model.language.tokenizer.end
    model.language.logits = without(end, model.language.logits)  # no answer ends by itself
    model.language.context = 64
    short, long = Document("short"), Document("long")
    short.add_text(range(5, 15), learn=False)
    long.add_text(range(5, 67), learn=False)
    engine = Engine(model)
    alone = [engine.submit(Answers(model, [each], tokens=8)).result()[0] for each in (short, long)]
    together = engine.submit(Answers(model, [short, long], tokens=8)).result()
    assert together == alone
    assert [each.cut for each in together] == [True, True]
    assert len(together[1]) < len(together[0])


def without(token, logits):
    """Logits in which a token is never the likeliest."""
    return lambda hidden: logits(hidden).index_fill(-1, torch.tensor([token]), -torch.inf)


def test_the_padding_of_a_batch_of_prompts_is_no_token_for_the_routing(tiny_model):
    model, world = tiny_model
    prompts = [document(model.contract, sample, prompt=True) for sample in asked(world)]
    read = []
    handle = model.language.register_forward_pre_hook(lambda _, arguments: read.append(arguments[1]))
    with torch.no_grad():
        Session(model, prompts)
    handle.remove()
    assert (read[0].documents >= 0).sum(1).tolist() == [len(prompt) for prompt in prompts]
    assert len(read[0].filled) == sum(len(prompt) for prompt in prompts) < read[0].documents.numel()


def test_drawing_step_by_step_equals_teacher_forcing(tiny_model):
    """Greedy codes, fed back as a written picture, are what the trained path predicts again."""
    model, world = tiny_model
    sample = next(s for s in world[0] if s.truth["task"] == "draw")
    prompt = draw_prompt(model.contract, prompt_of(sample))
    codes = draw(model, [prompt], GREEDY)
    span = model.contract.span
    size = len(prompt)
    prompt.add_picture(
        PictureInMemory(Image.new("RGB", (32, 32))),
        Kind.WRITTEN,
        0,
        span.opens,
        span.exposed,
        span.coordinates,
    )
    batch, slots = pack([[prompt]])
    batch = PictureReader(model.contract).attach(batch, slots)
    batch.written.image.targets, batch.written.image.encoded = codes, True
    with torch.no_grad():
        losses = model.losses(batch)
        embeddings, layout, _ = model.embed(batch)
        hidden = model.language(embeddings, layout)[:, size - 1 : size - 1 + span.length]
    # With greedy sampling each code is the likeliest, so its loss is below that of any other choice.
    other = batch.written.image.targets.clone()
    batch.written.image.targets = (other + 1) % model.image_tokenizer.codebook_size
    assert losses["image"].mean < model.losses(batch)["image"].mean
    assert hidden.shape[1] == span.length


def test_batched_answers_equal_single_ones(tiny_model):
    model, world = tiny_model
    prompts = asked(world)
    assert answers(model, prompts, tokens=6) == [answers(model, [prompt], tokens=6)[0] for prompt in prompts]


def test_the_same_seed_gives_the_same_picture(tiny_model):
    model, _ = tiny_model
    one, again, other = (model.generate(["a dog", "a cat"], seed=seed) for seed in (1, 1, 2))
    assert [p.tobytes() for p in one] == [p.tobytes() for p in again]
    assert [p.tobytes() for p in one] != [p.tobytes() for p in other]
    assert one[0].size == (32, 32)


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"guidance": 3.0, "top_k": 9}])
def test_a_picture_depends_on_its_prompt_and_seed_alone(tiny_model, options):
    """Beside other prompts, in another place, and in a batch of any size it is the same."""
    model = lively(tiny_model)
    prompts = ["a dog", "a cat at the top left, a dog at the bottom right", "a cat"]
    alone = [model.generate(prompt, seed=1, **options)[0].tobytes() for prompt in prompts]
    assert len(set(alone)) == 3
    assert [p.tobytes() for p in model.generate(prompts, seed=1, **options)] == alone
    assert [p.tobytes() for p in model.generate(prompts[::-1], seed=1, **options)] == alone[::-1]


def test_several_pictures_of_a_prompt_are_those_of_the_seeds_behind_its_own(tiny_model, monkeypatch):
    model = lively(tiny_model)
    monkeypatch.setattr(drawing, "TOGETHER", 2)
    several = [p.tobytes() for p in model.generate(["a dog", "a cat"], count=3, seed=4)]
    assert len(set(several)) == 6
    assert several == [
        model.generate(prompt, seed=seed)[0].tobytes() for prompt in ("a dog", "a cat") for seed in (4, 5, 6)
    ]
    assert [p.tobytes() for p in model.generate(["a dog", "a cat"], seed=[5, 4])] == [several[1], several[3]]


def test_each_picture_of_an_answer_has_a_seed_of_its_own(tiny_model, monkeypatch):
    model, _ = tiny_model
    draw_id = model.language.tokenizer.draw
    monkeypatch.setattr(
        model,
        "text_logits",
        lambda hidden, images=True: torch.nn.functional.one_hot(
            torch.full(hidden.shape[:-1], draw_id), len(model.language.tokenizer)
        ).float(),
    )
    seeds, write = [], model.image_head.write

    def noted(start, sampling, generators, progress):
        seeds.append(generators.seeds)
        return write(start, sampling, generators, progress)

    monkeypatch.setattr(model.image_head, "write", noted)
    assert len(model.chat("Draw.", tokens=3, seed=2**64 - 1).pictures) == 2
    assert seeds == [(2**64 - 1,), (0,)]


BAD_OPTIONS = [
    ("guidance", 0.5), ("guidance", 0), ("guidance", -1), ("guidance", float("nan")), ("guidance", float("inf")),
    ("guidance", 1e300), ("guidance", True), ("guidance", "2"), ("guidance", [2]), ("guidance", 10**400),
    ("temperature", -1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "hot"),
    ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_k", float("nan")), ("top_k", "9"),
    ("seed", -1), ("seed", 99999999999999999999), ("seed", 2**64), ("seed", 1.5), ("seed", True), ("seed", "1"),
    ("seed", float("nan")),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), BAD_OPTIONS)
def test_a_sampling_option_out_of_range_is_named(tiny_model, option, value):
    model, _ = tiny_model
    for use in (
        lambda: model.generate("a dog", **{option: value}),
        lambda: model.chat("a dog", **{option: value}),
        lambda: Turn(model, "a dog", **{option: value}),
    ):
        with pytest.raises(ChiasmError, match=rf"^{option}: .*{re.escape(quoted(value))}"):
            use()


@pytest.mark.parametrize("value", [0, -3, 1.5, True, "4", float("nan")])
def test_a_count_out_of_range_is_named(tiny_model, value):
    model, _ = tiny_model
    with pytest.raises(ChiasmError, match=r"^count: "):
        model.generate("a dog", count=value)
    with pytest.raises(ChiasmError, match=r"^tokens: "):
        model.chat("a dog", tokens=value)


@pytest.mark.parametrize("prompt", [None, 3, ["a dog", 3], [None], b"dog"])
def test_a_prompt_that_is_no_text_is_named(tiny_model, prompt):
    model, _ = tiny_model
    with pytest.raises(DataError, match=r"^prompt \d is .*; it must be text$"):
        model.generate(prompt)


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-30, 1e-6])
def test_a_temperature_near_zero_is_greedy(temperature):
    """However near: single precision cannot even hold the first two."""
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 9
    assert torch.equal(
        choose(logits, Sampling(temperature=temperature), Generators(range(50))), logits.argmax(-1)
    )


def test_guidance_moves_the_codes_and_one_is_none(tiny_model):
    model, world = tiny_model
    sample = next(s for s in world[0] if s.truth["task"] == "draw")
    prompts = [draw_prompt(model.contract, prompt_of(sample))]
    plain, guided = (draw(model, prompts, replace(GREEDY, guidance=g)) for g in (1.0, 8.0))
    assert plain.shape == guided.shape == (1, *model.image_tokenizer.grid)


def test_chat_takes_words_and_pictures_and_can_answer_with_both(tiny_model):
    model, _ = tiny_model
    reply = model.chat([{"role": "user", "content": [Image.new("RGB", (20, 30)), "What is this?"]}], tokens=4)
    assert isinstance(str(reply), str)
    # A model that always begins a picture draws one picture after another until its tokens are spent.
    with torch.no_grad():
        head = model.language.inner.lm_head.weight
        head.zero_()
    first = model.language.logits
    draw_id = model.language.tokenizer.draw
    model.language.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.full(hidden.shape[:-1], draw_id), len(model.language.tokenizer)
    ).float()
    reply = model.chat("Draw.", tokens=2)
    model.language.logits = first
    assert [type(item) for item in reply.content] == [Image.Image] * 2 or len(reply.pictures) >= 1


def test_a_batch_of_answers_never_holds_the_marker_of_a_picture(tiny_model):
    model, world = tiny_model
    draw_id = model.language.tokenizer.draw
    model.language.logits = lambda hidden: torch.nn.functional.one_hot(
        torch.full(hidden.shape[:-1], draw_id), len(model.language.tokenizer)
    ).float()
    assert "draw" not in answers(model, asked(world, 1), tokens=2)[0]


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], "the conversation is empty"),
        ([{"role": "usr", "content": "x"}], "role 'usr'"),
        ([{"content": "x"}], "must be a mapping with 'role' and 'content'"),
        ([{"role": "user", "content": [3]}], "has content 3"),
        ([{"role": "user", "content": [{"image": "none.png"}]}], "there is no picture at none.png"),
        ("word " * 300, "but the context is 256"),
    ],
)
def test_bad_conversations_are_named(tiny_model, messages, error):
    model, _ = tiny_model
    with pytest.raises(DataError, match=error):
        model.chat(messages)


def test_a_sample_longer_than_the_context_is_named(tiny_model):
    model, _ = tiny_model
    long = Sample("sample 9 of x", (Message("user", ("word " * 300,)),))
    with pytest.raises(DataError, match=r"sample 9 of x has .* but the context is 256"):
        document(model.contract, long, prompt=True)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_answer_goes_on_within_a_half_drawn_picture(tiny_model, monkeypatch, stop):
    """Stopped after some codes of a picture, and between words: the same answer as one that was never stopped."""
    model, _ = tiny_model
    draw_id, said = model.language.tokenizer.draw, []

    def logits(hidden, images=True):  # "words, a picture, words"
        said.append(len(said))
        wanted = torch.full(hidden.shape[:-1], draw_id if len(said) % 3 == 2 else 40 + len(said))
        return torch.nn.functional.one_hot(wanted, len(model.language.tokenizer)).float()

    monkeypatch.setattr(model, "text_logits", logits)
    whole = model.chat("Draw.", tokens=6, seed=3, temperature=1.0)
    said.clear()
    turn, reply = Turn(model, "Draw.", tokens=6, seed=3, temperature=1.0), Reply()
    sizes, extend = [], Session.extend

    def stopping(self, extensions):
        kind = extensions[0][1].kinds[0]
        if kind == Kind.WRITTEN:
            sizes.append(len(extensions[0][1].kinds))
            if len(sizes) in (stop, stop + 2):
                raise KeyboardInterrupt
        return extend(self, extensions)

    monkeypatch.setattr(Session, "extend", stopping)
    stops = 0
    while not turn.ended:
        try:
            for piece in turn:
                reply.add(piece)
        except KeyboardInterrupt:
            stops += 1
    assert stops == 2
    assert max(sizes) > 1  # what was made before is read at once, not made again
    assert [type(item) for item in reply.content] == [type(item) for item in whole.content]
    assert reply.text == whole.text
    assert [p.tobytes() for p in reply.pictures] == [p.tobytes() for p in whole.pictures]


def test_a_step_says_that_nothing_is_hidden_only_where_that_is_so(tiny_model, monkeypatch):
    model, world = tiny_model
    prompts = [document(model.contract, sample, prompt=True) for sample in asked(world)]
    found = []
    forward = model.language.forward

    def watched(embeddings, layout, cache=None):
        found.append((layout.clear, bool(layout.dense_mask.all())))
        return forward(embeddings, layout, cache)

    monkeypatch.setattr(model.language, "forward", watched)
    clears = []
    for documents in (prompts[:1], prompts):  # prompts of different lengths leave padding in the cache
        with torch.no_grad():
            session = Session(model, documents)
            read = torch.zeros(len(documents), 3, model.language.width)
            for opens, exposed in (([True] + [False] * 2, [True] * 3), ([True] * 3, [True] * 3)):
                session.step(read, Kind.WRITTEN, opens, exposed)
            session.step(read, Kind.WRITTEN, [False] * 3, [False] * 3)
            session.step_text(torch.zeros(len(documents), dtype=torch.long))
        clears.append([clear for clear, _ in found[1:]])
        assert all(nothing for clear, nothing in found if clear)
        found.clear()
    assert clears == [[True, False, False, False], [False] * 4]


def test_memory_for_a_picture_is_laid_out_at_once():
    cache = KeyValues(expected=9)
    given = [torch.randn(1, 2, count, 4) for count in (2, 3, 4, 1)]
    places = []
    for each in given:
        keys, _ = cache.extended(0, each, -each)
        places.append(cache.memory[0].shape[3])
    assert places == [9, 9, 9, 18]
    assert torch.equal(keys, torch.cat(given, 2))
