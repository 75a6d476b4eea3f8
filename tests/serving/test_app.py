"""The server as its clients meet it: OpenAI's own client, and requests that mean no good."""

import base64
import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import deepcopy

import openai
import pytest

from chiasm.conversation import chat
from chiasm.errors import ChiasmError
from chiasm.inference.engine import Engine
from chiasm.serving.app import create_app
from clients import KEY, LIMITS, data_url, opened, post, said, showing
from served import served


def test_models_say_what_they_read_and_make(client):
    (only,) = client.models.list().data
    assert only.id == "tiny"
    assert only.modalities == {"input": ["text", "image"], "output": ["text", "image"]}
    assert only.image_size == "32x32"
    assert only.image_tokens == 4
    assert client.models.retrieve("tiny").context_length == only.context_length == 256


def test_an_answer_is_the_models_own(client, model):
    reply = client.chat.completions.create(model="tiny", messages=said("What is this?"), max_tokens=6, seed=1)
    expected = chat(model, "What is this?", tokens=6, seed=1)
    assert reply.choices[0].message.content == "".join(i for i in expected.content if isinstance(i, str))
    images = [opened(each["image_url"]["url"]) for each in reply.choices[0].message.images]
    assert [each.tobytes() for each in images] == [each.tobytes() for each in expected.pictures]
    assert images  # it draws within its answer
    # Of the limit an image took one token, its marker; it counts as its 4 positions.
    assert 4 * len(images) <= reply.usage.completion_tokens <= 6 + 3 * len(images)
    assert reply.seed == 1


def test_what_it_answers_depends_on_the_image(client):
    answers = {
        client.chat.completions.create(
            model="tiny", messages=showing(data_url(color)), max_tokens=8, modalities=["text"]
        )
        .choices[0]
        .message.content
        for color in ("red", "white", "black", "lime")
    }
    assert len(answers) > 1


def test_a_stream_is_the_answer_piece_by_piece(client):
    options = {"model": "tiny", "messages": said("Draw: a dog."), "max_tokens": 6, "seed": 2}
    whole = client.chat.completions.create(**options).choices[0]
    text, images, reasons = "", [], []
    for chunk in client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            images += getattr(choice.delta, "images", None) or []
            reasons.append(choice.finish_reason)
    assert text == whole.message.content
    assert images == whole.message.images
    assert [each["index"] for each in images] == list(range(len(images)))
    assert reasons[-1] == whole.finish_reason
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_ordered_content_keeps_text_and_images_in_their_order(client, model):
    reply = client.chat.completions.create(
        model="tiny",
        messages=said("What is this?"),
        max_tokens=6,
        seed=1,
        extra_body={"ordered_content": True},
    )
    parts = reply.choices[0].message.content
    expected = chat(model, "What is this?", tokens=6, seed=1).content
    kinds = ["text" if isinstance(each, str) else "image_url" for each in expected]
    assert [part["type"] for part in parts] == kinds


def test_an_answer_goes_back_as_it_came(client):
    first = client.chat.completions.create(model="tiny", messages=said("Draw: a dog."), max_tokens=4, seed=1)
    message = first.choices[0].message.model_dump(exclude_none=True)
    messages = [*said("Draw: a dog."), message, *said("And a cat?")]
    second = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=4, modalities=["text"]
    )
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + len(message.get("images", ())) * 4
    assert not getattr(second.choices[0].message, "images", None)


def test_images_of_a_prompt_are_the_models_own(client, model):
    reply = client.images.generate(model="tiny", prompt="a dog", n=2, extra_body={"seed": 5})
    expected = model.generate("a dog", count=2, seed=5)
    assert [opened(each.b64_json).tobytes() for each in reply.data] == [each.tobytes() for each in expected]
    assert [each.seed for each in reply.data] == [5, 6]
    assert reply.size == "32x32"


def test_a_streamed_image_grows_on_grey_and_ends_as_it_is_whole(client, model):
    events = list(
        client.images.generate(prompt="a dog", stream=True, partial_images=3, extra_body={"seed": 5})
    )
    assert [each.type.rpartition(".")[2] for each in events] == [*["partial_image"] * 3, "completed"]
    assert [each.partial_image_index for each in events[:-1]] == [0, 1, 2]
    grey = [opened(each.b64_json).convert("RGB").getcolors(1024) for each in events]
    counts = [sum(count for count, color in colors if color == (128, 128, 128)) for colors in grey]
    assert counts[:-1] == sorted(counts[:-1], reverse=True)
    assert counts[0] >= 3 * 16 * 16  # three of four cells are not drawn
    (expected,) = model.generate("a dog", seed=5)
    assert opened(events[-1].b64_json).tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_images_come_in_the_format_that_is_asked_for(client, form):
    reply = client.images.generate(prompt="a dog", output_format=form, extra_body={"seed": 5})
    assert opened(reply.data[0].b64_json).format.lower() == form


def test_a_text_is_continued(client):
    reply = client.completions.create(model="tiny", prompt="The dog", max_tokens=5)
    streamed = client.completions.create(model="tiny", prompt="The dog", max_tokens=5, stream=True)
    assert "".join(each.choices[0].text for each in streamed) == reply.choices[0].text
    assert reply.choices[0].finish_reason == "length"


def test_neighbours_change_nothing_and_nothing_is_mixed_up(client, model):
    questions = [f"How many dogs are there, number {i}?" for i in range(8)]

    def asked(question):
        return (
            client.chat.completions.create(
                model="tiny", messages=said(question), max_tokens=8, modalities=["text"]
            )
            .choices[0]
            .message.content
        )

    alone = [asked(question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(asked, questions))
    assert together == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"logit_bias": {}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"modalities": ["image"]}, "modalities"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"response_format": {}}, "response_format.type"),
        ({"messages": said("")}, "messages.0"),
        ({"messages": said(" \n")}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": showing("/etc/passwd")}, "messages.0.content.0"),
        ({"messages": showing("file:///etc/passwd")}, "messages.0.content.0"),
        ({"messages": showing("http://169.254.169.254/")}, "messages.0.content.0"),
        ({"messages": showing("data:image/png;base64,AAAA")}, "messages.0.content.0"),
        ({"messages": showing(*[data_url()] * 4)}, "messages.0.content.3"),
        ({"messages": [*said("x"), {"role": "system", "content": "x"}]}, "messages"),
        ({"stream_options": {"include_usage": True, "more": 1}}, "stream_options.more"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"modalities": ["text"], "image_top_k": 3}, "image_top_k"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ""}, "stop"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"messages": said(5)}, "messages.0.content"),
        ({"messages": said([{"type": "text", "txt": "x"}])}, "messages.0.content.0.text"),
        ({"messages": said([{"type": "image_url", "image_url": "data:"}])}, "messages.0.content.0.image_url"),
        (
            {"messages": said([{"type": "image_url", "image_url": {"url": "data:", "detail": "high"}}])},
            "messages.0.content.0.image_url.detail",
        ),
        ({"messages": said([{"type": "input_audio"}])}, "messages.0.content.0.type"),
        ({"messages": said([{"text": "x"}])}, "messages.0.content.0.type"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(address, more, param):
    status, body = post(
        address, "/v1/chat/completions", {"model": "tiny", "messages": said("Hello."), **more}
    )
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert "constrained" not in body["error"]["message"]
    assert body["error"]["param"] == param
    assert body["error"]["code"] is None
    assert "Traceback" not in body["error"]["message"]


@pytest.mark.parametrize(
    ("route", "param"),
    [
        ("chat/completions", "messages"),
        ("tokens", "messages"),
        ("responses", "input"),
        ("completions", "prompt"),
        ("images/generations", "prompt"),
    ],
)
@pytest.mark.parametrize("text", ["word " * 300, "word " * 100_000])
def test_what_is_longer_than_the_context_is_refused_as_openai_does(address, route, param, text):
    content = said(text) if param == "messages" else text
    status, body = post(address, f"/v1/{route}", {"model": "tiny", param: content})
    assert (status, body["error"]["param"]) == (400, param)
    assert body["error"]["code"] == "context_length_exceeded"


def test_an_image_that_breaks_off_is_named_though_its_header_is_whole(address):
    file = base64.b64decode(data_url().partition(",")[2])
    url = "data:image/png;base64," + base64.b64encode(file[: len(file) // 2]).decode()
    for route, more, param in (
        ("chat/completions", {"messages": showing(data_url(), url)}, "messages.0.content.1"),
        ("images/edits", {"prompt": "a dog", "images": [{"image_url": url}]}, "images.0"),
        ("images/reconstructions", {"image": {"image_url": url}}, "image"),
    ):
        status, body = post(address, f"/v1/{route}", {"model": "tiny", **more})
        assert (status, body["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "more",
    [
        *(
            {"size": "64x64"},
            {"quality": "hd"},
            {"n": 0},
            {"partial_images": 2},
            {"prompt": " "},
            {"mask": "x"},
        ),
        *({"response_format": "url"}, {"stream": True, "n": 2}, {"guidance_scale": 0.5}),
        {"output_compression": 50},
    ],
)
def test_what_cannot_be_drawn_is_refused(address, more):
    status, body = post(address, "/v1/images/generations", {"prompt": "a dog", **more})
    assert status == 400
    (name,) = [key for key in more if key != "stream"]
    assert name.removesuffix("_scale") in body["error"]["message"]
    assert body["error"]["param"] == name


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="did you mean 'tiny'") as error:
        client.chat.completions.create(model="tinny", messages=said("Hello."))
    assert error.value.param == "model"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000, b"1" * 10_000]
)
def test_a_body_that_is_no_request_is_a_sentence(address, body):
    status, reply = post(address, "/v1/chat/completions", body)
    assert status == 400
    assert reply["error"]["message"]


@pytest.mark.parametrize("route", ["chat/completions", "images/generations", "images/edits", "tokens"])
@pytest.mark.parametrize(
    "body", ['{"model": "tiny", "model": "tiny"}', '{"messages": [{"model": 1, "model": 2}]}']
)
def test_a_key_that_stands_twice_is_named(address, route, body):
    status, reply = post(address, f"/v1/{route}", body)
    assert (status, reply["error"]["message"]) == (
        400,
        "the body is no JSON: the key 'model' stands there twice",
    )


def test_a_stream_s_options_need_a_stream_for_a_text_too(address):
    body = {"model": "tiny", "prompt": "The dog", "stream_options": {"include_usage": False}}
    status, reply = post(address, "/v1/completions", body)
    assert (status, reply["error"]["param"]) == (400, "stream_options")


def test_a_large_body_is_refused_before_it_is_read(address):
    status, _ = post(address, "/v1/chat/completions", b"x" * (LIMITS.body + 1))
    assert status == 413


def test_a_large_body_in_chunks_is_refused_while_it_is_read(address):
    chunks = (b"x" * 65536 for _ in range(2 * LIMITS.body // 65536))
    connection = http.client.HTTPConnection(*address, timeout=60)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413


@pytest.mark.parametrize("key", ["another", "", "a ke", "ключ"])
def test_another_key_opens_nothing(address, key):
    header = f"Bearer {key}".encode()
    status, body = post(address, "/v1/chat/completions", {"model": "tiny"}, authorization=header)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


def test_health_needs_no_key_and_a_reply_has_a_number(address):
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/health")
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.headers["x-request-id"].startswith("req_")


def metric(address, name, **labels):
    """A number that the server counts, of the model `tiny`."""
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {KEY}"})
    lines = connection.getresponse().read().decode().splitlines()
    key = ",".join(f'{label}="{value}"' for label, value in sorted({"model": "tiny", **labels}.items()))
    counts = [line.split()[-1] for line in lines if line.startswith(f"{name}{{{key}}}")]
    return float(counts[0]) if counts else 0


def until_nothing_is_pending(address):
    deadline = time.monotonic() + 60
    while metric(address, "chiasm_pending") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert metric(address, "chiasm_pending") == 0


def test_metrics_count_what_was_done(client, address):
    before = metric(address, "chiasm_requests_total", outcome="done", route="images")
    client.images.generate(prompt="a dog")
    assert metric(address, "chiasm_requests_total", outcome="done", route="images") == before + 1


def test_what_requests_have_in_common_is_read_once_and_counted(client, address):
    before = metric(address, "chiasm_reused_positions_total")
    rules = {"role": "system", "content": "You work in a shop that sells animals and trees of all kinds."}
    usages = [
        client.chat.completions.create(
            model="tiny",
            messages=[rules, *showing(data_url("red"), text=f"Is {animal} there?")],
            max_tokens=2,
            modalities=["text"],
        ).usage
        for animal in ("a dog", "a cat")
    ]
    cached = [usage.prompt_tokens_details.cached_tokens for usage in usages]
    assert 16 < cached[1] < usages[1].prompt_tokens  # the image takes 16
    assert metric(address, "chiasm_reused_positions_total") - before == sum(cached)
    reply = client.responses.create(
        model="tiny", instructions=rules["content"], input="Is a dog there?", max_output_tokens=2
    )
    assert reply.usage.input_tokens_details.cached_tokens >= 32


def test_models_share_nothing_that_they_have_read(model):
    """Nor do adapters, which are served as models."""
    with served(create_app({"tiny": model, "other": model}, key=KEY, limits=LIMITS)) as address:
        client = openai.OpenAI(base_url="http://{}:{}/v1".format(*address), api_key=KEY, max_retries=0)
        messages = said("What is this, and what else is there besides, and where does each of them stand?")
        cached = [
            client.chat.completions.create(
                model=name, messages=messages, max_tokens=1
            ).usage.prompt_tokens_details.cached_tokens
            for name in ("tiny", "other", "tiny")
        ]
    assert cached[:2] == [0, 0]
    assert cached[2] > 0


def test_a_client_that_leaves_frees_its_place(client, address):
    cancelled = {"outcome": "cancelled", "route": "chat"}
    before = metric(address, "chiasm_requests_total", **cancelled)
    for _ in range(LIMITS.pending):
        stream = client.chat.completions.create(
            model="tiny", messages=said("Hello."), max_tokens=200, stream=True, modalities=["text"]
        )
        next(iter(stream))
        stream.close()
        until_nothing_is_pending(address)
    assert metric(address, "chiasm_requests_total", **cancelled) > before


def test_more_than_there_is_room_for_is_told_to_come_again(client, address, monkeypatch):
    def ask():
        try:
            client.chat.completions.create(model="tiny", messages=said("Hello."), max_tokens=2)
        except openai.RateLimitError as error:
            return error.response.headers["retry-after"]
        return None

    until_nothing_is_pending(address)
    go_on, tick = threading.Event(), Engine.tick
    monkeypatch.setattr(Engine, "tick", lambda engine: (go_on.wait(60), tick(engine)))
    with ThreadPoolExecutor(LIMITS.pending + 9) as pool:
        replies = as_completed([pool.submit(ask) for _ in range(LIMITS.pending + 9)])
        refused = [next(replies).result() for _ in range(9)]  # nobody is answered before
        go_on.set()
        answered = [reply.result() for reply in replies]
    assert refused == ["1"] * 9
    assert answered == [None] * LIMITS.pending


def test_a_model_without_words_is_not_served(model):
    part = deepcopy(model)
    part.language = None
    with pytest.raises(ChiasmError, match="no language model"):
        create_app({"part": part})
