"""`/v1/tokens`: a conversation as the model reads it."""

from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample
from clients import data_url, post, said, showing


def test_a_conversation_is_shown_token_by_token(address, model):
    _, reply = post(
        address, "/v1/tokens", {"model": "tiny", "messages": showing(data_url(), text="What is this?")}
    )
    entries = reply["data"]
    (image,) = [each for each in entries if each["kind"] != "text"]
    assert (image["kind"], image["positions"]) == ("image read", 16)
    assert "".join(each["text"] for each in entries).count("What is this?") == 1
    assert sum(each["positions"] for each in entries) == reply["total"]
    assert not any(each["learnt"] for each in entries)
    assert [each["block"] for each in entries] == sorted(each["block"] for each in entries)


def test_of_an_answer_its_own_tokens_are_learnt(address, model):
    messages = [*said("What is this?"), {"role": "assistant", "content": "A dog."}]
    _, reply = post(address, "/v1/tokens", {"model": "tiny", "messages": messages})
    sample = Sample("it", (Message("user", ("What is this?",)), Message("assistant", ("A dog.",))))
    labels = document(model.contract, sample).labels
    learnt = [each for each in reply["data"] if each["learnt"]]
    assert "".join(each["text"] for each in learnt).strip().startswith("A dog.")
    assert len(learnt) == sum(label >= 0 for label in labels)


def test_an_image_of_an_answer_is_written_and_learnt(address):
    drawn = {"type": "image_url", "image_url": {"url": data_url()}}
    messages = [*said("Draw: a dog."), {"role": "assistant", "images": [drawn]}]
    _, reply = post(address, "/v1/tokens", {"model": "tiny", "messages": messages})
    (image,) = [each for each in reply["data"] if each["kind"] == "image written"]
    assert (image["positions"], image["blocks"], image["learnt"]) == (4, 4, True)


def test_what_cannot_be_read_is_refused(address):
    status, reply = post(
        address, "/v1/tokens", {"model": "tiny", "messages": [{"role": "system", "content": "x"}]}
    )
    assert status == 400
    assert "role 'system'" in reply["error"]["message"]
