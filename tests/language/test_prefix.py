"""A prefix language model: what is asked is read with sight of all of it, the answer causally."""

import torch

from chiasm.data import Message, Sample
from chiasm.data.documents import document, draw_prompt
from chiasm.data.picture_reader import PictureReader
from chiasm.inference.session import Session
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack

ASKED = Message("user", ("what is at the top left ?",))


def prefix_model(tiny):
    tiny["model"]["language"]["type"] = "prefix"
    return Model(load_recipe(tiny).model, texts=["what is at the top left ? a cat"] * 9).eval()


def hidden_of(model, each):
    batch, slots = pack([[each]])
    embeddings, layout, _ = model.embed(PictureReader(model.contract).attach(batch, slots))
    embeddings = embeddings.detach().requires_grad_()
    return embeddings, model.language(embeddings, layout)[0]


def test_the_question_sees_itself_whole_and_the_answer_sees_what_stands_before(tiny):
    model = prefix_model(tiny)
    each = document(model.contract, Sample("a sample", (ASKED, Message("assistant", ("a cat",)))))
    answer = next(
        i for i, label in enumerate(each.labels) if label >= 0
    )  # the position that predicts its first word
    embeddings, hidden = hidden_of(model, each)
    for place in range(len(each)):
        (gradient,) = torch.autograd.grad(hidden[place].sum(), embeddings, retain_graph=True)
        seen = gradient[0].abs().sum(-1).nonzero()[:, 0].tolist()
        assert seen == list(range(answer if place < answer else place + 1)), place


def test_asked_to_draw_it_reads_what_it_has_learnt_behind(tiny, tiny_model):
    model = prefix_model(tiny)
    _, world = tiny_model
    (image,) = next(s for s in world[0] if s.truth["task"] == "draw").messages[1].content
    learnt = document(model.contract, Sample("a sample", (ASKED, Message("assistant", (image,)))))
    prompt = draw_prompt(model.contract, Sample("a sample", (ASKED,)))
    assert (learnt.ids[: len(prompt)], learnt.opens[: len(prompt)]) == (prompt.ids, prompt.opens)
    start = Session(model, [prompt]).last[0]
    torch.testing.assert_close(start, hidden_of(model, learnt)[1][len(prompt) - 1], rtol=1e-4, atol=1e-5)
