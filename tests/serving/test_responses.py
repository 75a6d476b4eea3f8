"""`/v1/responses`, as OpenAI's client meets it."""

import pytest

from chiasm.conversation import chat
from clients import data_url, opened, post

TOOL = {"type": "image_generation", "partial_images": 1}
OPTIONS = {"model": "tiny", "input": "What is this?", "max_output_tokens": 6, "extra_body": {"seed": 1}}


def contents(response):
    """Text and images of a response in their order."""
    return [
        item.content[0].text if item.type == "message" else opened(item.result).tobytes()
        for item in response.output
    ]


def expected(model, question="What is this?", **options):
    reply = chat(model, question, tokens=6, **options)
    return [item if isinstance(item, str) else item.tobytes() for item in reply.content]


def test_a_response_holds_text_and_images_of_the_models_answer_in_their_order(client, model):
    response = client.responses.create(**OPTIONS, tools=[{"type": "image_generation"}])
    assert contents(response) == expected(model, seed=1)
    assert {item.type for item in response.output} >= {"image_generation_call"}
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_an_image_counts_alike_wherever_it_is_drawn(client):
    response = client.responses.create(**OPTIONS, tools=[{"type": "image_generation"}])
    images = sum(item.type == "image_generation_call" for item in response.output)
    one = client.images.generate(model="tiny", prompt="a dog").usage.output_tokens
    assert images
    # The rest are words: of the limit of 6 tokens each image took one.
    assert 0 <= response.usage.output_tokens - images * one <= 6 - images


def test_without_the_tool_an_answer_is_text_alone(client):
    response = client.responses.create(**OPTIONS)
    assert [item.type for item in response.output] == ["message"]
    assert response.output_text == response.output[0].content[0].text
    cut = client.responses.create(model="tiny", input="What is this?", max_output_tokens=1)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_stream_ends_with_the_response_that_it_was_and_shows_images_that_are_not_whole(client):
    whole = client.responses.create(**OPTIONS, tools=[{"type": "image_generation"}])
    events = list(client.responses.create(**OPTIONS, tools=[TOOL], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == f"response.{whole.status}"
    assert contents(events[-1].response) == contents(whole)
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == "".join(each for each in contents(whole) if isinstance(each, str))
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in done] == [item.id for item in events[-1].response.output]
    calls = [item.id for item in done if item.type == "image_generation_call"]
    partial = [event for event in events if event.type.endswith("partial_image")]
    assert [event.item_id for event in partial] == calls
    assert opened(partial[0].partial_image_b64).size == (32, 32)


def test_the_items_of_a_response_go_back_as_they_came(client):
    tools = [{"type": "image_generation"}]
    first = client.responses.create(**{**OPTIONS, "max_output_tokens": 3}, tools=tools)
    conversation = [{"role": "user", "content": "What is this?"}]
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    conversation.append({"role": "user", "content": [{"type": "input_text", "text": "And now?"}]})
    second = client.responses.create(model="tiny", input=conversation, max_output_tokens=2)
    drawn = sum(item.type == "image_generation_call" for item in first.output)
    assert second.usage.input_tokens > first.usage.input_tokens + drawn * 4


def test_an_image_and_instructions_are_read_as_a_chat_reads_them(client):
    parts = [
        {"type": "input_image", "image_url": data_url()},
        {"type": "input_text", "text": "What is this?"},
    ]
    response = client.responses.create(
        model="tiny",
        instructions="Be short.",
        input=[{"role": "user", "content": parts}],
        max_output_tokens=6,
    )
    system = {"role": "system", "content": "Be short."}
    seen = [
        {"type": "image_url", "image_url": {"url": data_url()}},
        {"type": "text", "text": "What is this?"},
    ]
    reply = client.chat.completions.create(
        model="tiny", messages=[system, {"role": "user", "content": seen}], max_tokens=6, modalities=["text"]
    )
    assert response.output_text == reply.choices[0].message.content
    assert response.usage.input_tokens == reply.usage.prompt_tokens


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "image_generation", "size": "7x7"}]}, "size"),
        ({"tools": [{"type": "image_generation", "input_fidelity": "high"}]}, "tools.0.input_fidelity"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"input": []}, "input"),
        ({"input": ""}, "input.0"),
        ({"input": " "}, "input"),
        ({"input": 7}, "input"),
        ({"input": [7]}, "input.0"),
        ({"input": [{"type": "reasoning"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0",
        ),
        ({"input": [{"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}]}, "input.0.result"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"max_tokens": 4}, "max_tokens"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"tools": [{"type": "image_generation", "output_compression": 50}]}, "tools"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(address, more, param):
    status, body = post(address, "/v1/responses", {"model": "tiny", "input": "Hello.", **more})
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == param
