"""Data that a model makes: what filters stop, what is written, and how much of it is right."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from PIL import Image

from chiasm.curation.journal import journaled
from chiasm.curation.making import FILTERS, WHOLE, DraftAnswer, Making, Material, Wordings, questions_in
from chiasm.curation.measuring import measure
from chiasm.curation.speakers import Prompt, ServerSpeaker, Speaker
from chiasm.data.chat import Chat
from chiasm.data.files import PictureInMemory
from chiasm.data.pages import Pages
from chiasm.errors import ChiasmError, DataError
from chiasm.inference.answers import Answer, is_cut
from chiasm.terminal.make import SpeakerChoice, make, read_materials

WORDINGS = Wordings()
QUESTIONS = ["What is it?", "Where is it?", "Who made it?", "How old is it?"]
TRUE = dict(zip(QUESTIONS, ["a cup", "on a shelf", "nobody", "old"]))


class Scripted(Speaker):
    """Answers in a way that each filter has something to stop.

    "Where" depends on the words it is asked in, "Who" on whether the text stands before it, and it does not itself
    believe what it says of "How old".
    """

    def __init__(self):
        self.prompts = []

    def answer(self, prompts, *, temperature=0.0):
        self.prompts += [prompt.text for prompt in prompts]
        return [self.one(prompt.text) for prompt in prompts]

    def one(self, text):
        if text.startswith("Write"):
            return "Sure:\n" + "\n".join(f"{i}. {question}" for i, question in enumerate(QUESTIONS, 1))
        if text == WORDINGS.read:
            return "cup"
        question = next(question for question in QUESTIONS if question in text)
        if "Explain" in text:
            return "It is to be seen."
        if "Say yes or no" in text:
            return "No." if question == "How old is it?" else "Yes, it is."
        if question == "Where is it?" and text != question:
            return "elsewhere"
        if question == "Who made it?" and "The image says: cup" in text:
            return "somebody"
        return TRUE[question]


def material(name="image", **options):
    return Material(name, PictureInMemory(Image.new("RGB", (8, 8)), name), f"{name}.png", **options)


def test_each_filter_stops_what_it_is_for():
    drafts = list(Making().drafts(Scripted(), [material()]))
    assert [draft.question for draft in drafts] == QUESTIONS
    assert {draft.question: draft.checks for draft in drafts} == {
        "What is it?": {"self": True, "prompts": True, "contexts": True},
        "Where is it?": {"self": True, "prompts": False},
        "Who made it?": {"self": True, "prompts": True, "contexts": False},
        "How old is it?": {"self": False},
    }
    assert [draft.retained for draft in drafts] == [True, False, False, False]
    assert [draft.reason for draft in drafts] == ["It is to be seen.", "", "", ""]


def test_only_the_filters_that_are_named_are_tried_and_a_text_that_is_known_is_not_read():
    speaker = Scripted()
    drafts = list(Making(filters=("contexts",), reasons=False).drafts(speaker, [material(text="a page")]))
    assert {name for draft in drafts for name in draft.checks} == {"contexts"}
    assert WORDINGS.read not in speaker.prompts
    assert any(prompt.startswith("The image says: a page\n") for prompt in speaker.prompts)


def test_lists_of_questions_are_read_in_the_forms_in_which_models_write_them():
    lines = [
        "Here:",
        "1. What?",
        "2) Who?",
        "- Where?",
        "",
        "(3) When?",
        "Q4: Why?",
        "* Who?",
        "No.",
        "5、谁?",
    ]
    text = "\n".join([*lines, "3 cats or 4?"])
    assert questions_in(text) == ["What?", "Who?", "Where?", "When?", "Why?", "谁?", "3 cats or 4?"]


class Noisy(Speaker):
    """Knows two of three answers of some pages; where it does not, it says something else each time."""

    def __init__(self, source):
        self.truths = {}
        for index in range(len(source)):
            for sample in source[index]:
                picture, question = sample.messages[0].content
                self.truths[picture.key, question] = sample.truth["answer"]
        self.guesses = 0

    def answer(self, prompts, *, temperature=0.0):
        return [self.one(prompt) for prompt in prompts]

    def one(self, prompt):
        if "Say yes or no" in prompt.text or prompt.text == WORDINGS.read:
            return "yes"
        question, truth = next(
            (question, truth)
            for (key, question), truth in self.truths.items()
            if key == prompt.picture.key and question in prompt.text
        )
        if sum(map(ord, question)) % 3:
            return truth
        self.guesses += 1
        return f"guess {self.guesses}"


def test_consistency_raises_the_precision_and_the_report_says_by_how_much():
    source = Pages(pages=12, canvas=96, kinds={"receipt": 1}, tasks={"question": 5})
    measured = measure(Noisy(source), source, Making(reasons=False), images=12, own_questions=False)
    before, by_itself, by_prompts, by_contexts = measured.rows
    assert before.answers == by_itself.answers == 60
    right = sum(draft.right for draft in measured.drafts)
    assert 0 < right < 60
    assert before.right.value == pytest.approx(right / 60)
    assert by_prompts.answers == right
    assert by_contexts.right.value == by_contexts.recall.value == 1
    assert [row.filter for row in measured.rows] == ["no filter", *FILTERS]


def test_questions_of_which_nobody_knows_the_answer_are_counted_apart():
    truths = {"what is it?": ("a cup.",), "Who made it?": ("me",)}
    drafts = list(Making(filters=()).drafts(Scripted(), [material(truths=truths)]))
    assert [draft.right for draft in drafts] == [True, None, False, None]


def test_data_is_made_from_a_folder_and_a_stopped_run_goes_on(tmp_path, monkeypatch, capsys):
    for name in ("b.png", "a.jpg", "c/d.webp"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    monkeypatch.setattr("chiasm.curation.journal.TOGETHER", 1)
    stops = Scripted()
    monkeypatch.setattr(SpeakerChoice, "speaker", lambda self: stops)
    place, out, calls = SpeakerChoice("model"), tmp_path / "made.jsonl", []

    def stopping(prompts, **options):
        calls.append(len(prompts))
        if len(calls) == 9:
            raise KeyboardInterrupt
        return Scripted.answer(stops, prompts, **options)

    stops.answer = stopping
    with pytest.raises(KeyboardInterrupt):
        make(place, tmp_path / "images", out, Making(), folder=None)
    assert not out.exists()
    journal = tmp_path / "made.journal"
    with journal.open("a") as file:
        file.write('{"number": 1, "dra')  # what a killed process leaves
    with pytest.raises(ChiasmError, match="other options"):
        make(place, tmp_path / "images", out, Making(count=2), folder=None)
    stops = Scripted()
    make(place, tmp_path / "images", out, Making(), folder=None)
    assert sum(prompt.startswith("Write") for prompt in stops.prompts) == 2  # of three images
    assert not journal.exists()
    output = capsys.readouterr().out
    assert "1 files of" in output
    assert "3 of 12 questions about 3 images stay" in output
    assert "3 stopped by the filter 'self'" in output
    made = Chat(path=str(out), images=str(tmp_path / "images"))
    assert len(made) == 3
    texts = [item for message in made[0][0].messages for item in message.content if isinstance(item, str)]
    assert texts == ["What is it?", "a cup", "Why?", "It is to be seen."]
    assert len((tmp_path / "made.dropped.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"picture": "a.png"}, "under 'image'"),
        ({"image": "a.png", "ocr": "x"}, "has the key 'ocr'|has the key ocr"),
        ({"image": "a.png", "text": 3}, "it must be words"),
        ({"image": "a.png", "questions": "What?"}, "must be a list of words"),
        ({"image": "none.png"}, "none.png"),
    ],
)
def test_records_of_images_that_are_none_are_named(tmp_path, record, problem):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file = tmp_path / "images.jsonl"
    file.write_text(
        json.dumps({"image": "a.png", "text": "x", "questions": ["What?"]}) + "\n" + json.dumps(record)
    )
    with pytest.raises(DataError, match=problem):
        list(read_materials(file, None))


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"aks": "x"}, "no wording 'aks'"),
        ({"ask": "Some questions."}, "must hold {count}"),
        ({"answers": ["{question}"]}, "two ways"),
        ({"judge": 3}, "must be text"),
    ],
)
def test_wordings_that_cannot_be_are_named(entries, problem):
    with pytest.raises(ChiasmError, match=problem):
        Wordings.of(entries)


@contextmanager
def stub(reply, status=200):
    """A server that notes what it is sent."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(reply(body)).encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", received
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_is_asked_in_openais_words_and_answers_in_order():
    def reply(body):
        return {"choices": [{"message": {"content": f" {body['messages'][0]['content'][1]['text']}! "}}]}

    with stub(reply) as (url, received):
        speaker = ServerSpeaker(url, "reader", key="secret", tokens=9)
        prompts = [Prompt(material(str(i)).picture, f"{i}") for i in range(6)]
        assert speaker.answer(prompts) == [f"{i}!" for i in range(6)]
    path, authorization, body = received[0]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("reader", 9, 0.0)
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("reply", "status", "problem"),
    [
        ({"error": "busy"}, 503, "answers 503.*busy"),
        ({"choices": []}, 200, "which is no completion"),
        ({"choices": [{"message": {"content": None}}]}, 200, "which is no completion"),
    ],
)
def test_a_server_that_does_not_answer_is_named(reply, status, problem):
    with stub(lambda body: reply, status) as (url, _), pytest.raises(ChiasmError, match=problem):
        ServerSpeaker(url, "reader").answer([Prompt(material().picture, "?")])


def test_a_server_needs_a_name_for_its_model_and_a_folder_none(monkeypatch):
    with pytest.raises(ChiasmError, match="by which name"):
        SpeakerChoice("http://localhost:1/v1").speaker()
    with pytest.raises(ChiasmError, match="are for servers"):
        SpeakerChoice("runs/mine", model="x").speaker()
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ChiasmError, match="NO_SUCH_KEY"):
        SpeakerChoice("http://localhost:1/v1", model="x", key_variable="NO_SUCH_KEY").speaker()


def test_an_answer_that_is_empty_is_not_retained():
    assert not DraftAnswer(material(), "What?").retained


class Hasty(Scripted):
    """Is cut off in the middle of what begins an answer, or a reason."""

    def __init__(self, cut):
        super().__init__()
        self.cut = cut

    def one(self, text):
        whole = super().one(text)
        return Answer.of(whole, cut=True) if whole == self.cut else whole


def test_an_answer_that_a_limit_cuts_off_is_stopped_and_a_reason_is_left_out():
    drafts = list(Making().drafts(Hasty("a cup"), [material()]))
    assert drafts[0].checks == {WHOLE: False}
    assert not drafts[0].retained
    drafts = list(Making().drafts(Hasty("It is to be seen."), [material()]))
    assert (drafts[0].retained, drafts[0].reason) == (True, "")
    assert len(drafts[0].record()["messages"]) == 2


def test_a_server_says_which_answers_it_has_cut_off():
    def reply(body):
        reason = body["messages"][0]["content"][1]["text"]
        return {"choices": [{"message": {"content": "a cu"}, "finish_reason": reason}]}

    with stub(reply) as (url, _):
        prompts = [Prompt(material().picture, reason) for reason in ("stop", "length")]
        assert [is_cut(each) for each in ServerSpeaker(url, "reader").answer(prompts)] == [False, True]


@pytest.mark.parametrize(
    ("words", "agrees"), [("是的，对。", True), ("正确", True), ("不是", False), ("对不起", False)]
)
def test_a_model_may_agree_in_chinese(words, agrees):
    class Judge(Scripted):
        def one(self, text):
            return words if "Say yes or no" in text else super().one(text)

    drafts = list(Making(filters=("self",)).drafts(Judge(), [material()]))
    assert {draft.checks["self"] for draft in drafts} == {agrees}


@pytest.mark.parametrize(
    ("choice", "question"),
    [
        (SpeakerChoice("another"), QUESTIONS[0]),
        (SpeakerChoice("model", seed=1), QUESTIONS[0]),
        (SpeakerChoice("model"), QUESTIONS[1]),
    ],
)
def test_what_one_model_has_begun_no_other_goes_on_with(tmp_path, choice, question):
    def drafts(question, choice):
        images = [material(questions=(question,))]
        every = journaled(tmp_path / "made.journal", Scripted(), images, Making(), choice.answers)
        return [each.record() for each in every]

    begun = drafts(QUESTIONS[0], SpeakerChoice("model"))
    assert drafts(QUESTIONS[0], SpeakerChoice("model", device="cpu")) == begun
    with pytest.raises(ChiasmError, match="another model"):
        drafts(question, choice)
