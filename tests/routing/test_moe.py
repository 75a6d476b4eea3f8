"""Sparse experts: who is chosen, what is dropped, and what a token gets."""

import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.nn.indivisible import reasons
from chiasm.nn.losses import objective
from chiasm.routing.choice import choose, gumbel
from reading import reading

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2}
KINDS = torch.tensor([[0, 1, 1, 0, 2]])


@pytest.fixture
def language():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=20)).eval()


def moe(language, **options):
    return parts.build("routing", {"type": "moe", "experts": 3, **options}, language).eval()


def read(language):
    with reading(KINDS):
        return language(torch.arange(5)[None]).logits


def test_weights_are_the_gates_of_the_best_two_made_to_sum_to_one():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]))
    choice = choose(scores, 2)
    assert choice.experts.tolist() == [[0, 1], [2, 1]]
    torch.testing.assert_close(choice.weights, torch.tensor([[5 / 8, 3 / 8, 0], [0, 2 / 9, 7 / 9]]))
    assert choice.firsts.tolist() == [1, 0, 1]


def test_a_single_choice_keeps_its_gate():
    choice = choose(torch.log(torch.tensor([[0.6, 0.4]])), 1)
    torch.testing.assert_close(choice.weights, torch.tensor([[0.6, 0.0]]))


def test_first_choices_are_placed_before_any_second_and_the_rest_is_dropped():
    """Four tokens and two experts with room for two of each: 4 / 2 * 0.5 * 2."""
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    choice = choose(scores, 2, capacity=0.5)
    assert choice.capacity == 2
    # Expert 0: tokens 0 and 1. Expert 1: token 3 by its first choice, token 0 by its second.
    assert (choice.weights > 0).tolist() == [[True, True], [True, False], [False, False], [False, True]]
    torch.testing.assert_close(choice.weights.sum(1), torch.tensor([1.0, 1.0, 0.0, 1.0]))


def test_an_expert_has_at_least_the_least_room():
    assert choose(torch.randn(4, 2), 2, capacity=0.1, least=3).capacity == 3


def test_noise_decides_every_choice_but_the_first():
    scores = torch.tensor([[3.0, 2.0, 1.0]])
    choice = choose(scores, 2, noise=torch.tensor([[-9.0, 0.0, 5.0]]))
    assert choice.experts.tolist() == [[0, 2]]
    gates = scores.softmax(1)[0]
    torch.testing.assert_close(choice.weights[0, 0], gates[0] / (gates[0] + gates[2]))


def test_gumbel_noise_draws_from_the_softmax():
    """Of three: for two, the noise and its negative do the same."""
    torch.manual_seed(0)
    scores = torch.log(torch.tensor([0.7, 0.15, 0.15])).expand(20_000, 3)
    share = ((scores + gumbel(scores)).argmax(1) == 0).float().mean()
    assert abs(share - 0.7) < 0.015


@pytest.mark.parametrize(("scores", "expected"), [([[9.0, -9.0]] * 4, 2.0), ([[0.1, 0], [0, 0.1]], 1.0)])
def test_balance_is_one_where_experts_are_chosen_alike(scores, expected):
    total, tokens = choose(torch.tensor(scores), 1).balance(ranks=False)
    assert float(total) / tokens == pytest.approx(expected, abs=1e-3)


def test_the_balance_counts_first_choices_alone():
    """All of three tokens choose expert 0 first, whatever they choose second: 3 experts x the mean gate of 0."""
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [2.5, 2.0, 0.0]])
    total, tokens = choose(scores, 2).balance(ranks=False)
    torch.testing.assert_close(total, 3 * scores.softmax(1)[:, 0].sum())
    assert tokens == 3


def test_without_options_it_is_moe_llavas_without_a_capacity():
    defaults = {
        name: option.default for name, option in parts.options(parts.lookup("routing", "moe")).items()
    }
    assert defaults == {
        "experts": 4,
        "top_k": 2,
        "layers": "alternate",
        "capacity": None,
        "eval_capacity": None,
        "min_capacity": 0,
        "noise": "training",
        "residual": False,
        "balance": 0.01,
    }


@pytest.mark.parametrize(
    ("noise", "training", "varies"),
    [
        ("never", True, False),
        ("never", False, False),
        ("training", True, True),
        ("training", False, False),
        ("always", True, True),
        ("always", False, True),
    ],
)
def test_noise_in_training_always_or_never(language, noise, training, varies):
    part = moe(language, noise=noise, layers=[0]).train(training)
    layer, tokens = part.each()[0], torch.randn(200, 8)
    torch.nn.init.normal_(layer.router.weight)
    one, other = (layer.choose(tokens).experts for _ in range(2))
    assert torch.equal(one[:, 0], other[:, 0])
    assert torch.equal(one[:, 1], other[:, 1]) != varies


def test_each_layer_may_have_another_number_of_experts(language):
    part = moe(language, experts=[2, 4])
    assert [len(layer.experts) for layer in part.each()] == [2, 4]
    assert [layer.router.weight.shape[0] for layer in part.each()] == [2, 4]


def test_an_expert_has_the_least_room_that_is_asked_for(language):
    layer = moe(language, capacity=0.1, eval_capacity=0.1, min_capacity=3, layers=[0]).each()[0]
    assert {layer.train(training).choose(torch.randn(5, 8)).capacity for training in (True, False)} == {3}


def test_a_batch_of_padding_alone_meets_no_expert(language):
    part = moe(language, capacity=1.0, layers=[0]).train()
    with reading(KINDS, torch.zeros_like(KINDS, dtype=torch.bool)):
        out = language.model.layers[0].mlp(torch.randn(1, 5, 8))
    assert not out.any()
    out.sum().backward()
    assert all(p.grad is not None for p in part.each()[0].experts.parameters())
    balance = part.losses()["balance"]
    assert (float(balance.sum), float(balance.count)) == (0, 0)


def test_where_padding_is_unknown_all_are_met(language):
    """A network that is given other positions than the language model reads, as an encoder's would be."""
    part = moe(language, layers=[0])
    x = torch.randn(1, 7, 8)
    mlp = language.model.layers[0].mlp
    with reading(KINDS, torch.zeros_like(KINDS, dtype=torch.bool)):
        out = mlp(x)
    torch.testing.assert_close(out, type(mlp).forward(mlp, x))  # the experts are copies of it
    assert part.report() == {"model.layers.0.mlp": {}}  # of what kind its positions are, nobody knows


def test_every_token_gets_the_weighted_sum_of_its_experts(language):
    layer = moe(language, layers=[1]).each()[0]
    for expert in layer.experts:
        for parameter in expert.parameters():
            torch.nn.init.normal_(parameter)
    x = torch.randn(1, 5, 8)
    gates = functional.softmax(x[0] @ layer.router.weight.T, 1)
    top = gates.topk(2)
    with reading(KINDS):
        made = language.model.layers[1].mlp(x)
    for t in range(5):
        weights = top.values[t] / top.values[t].sum()
        expected = sum(
            w * layer.experts[int(e)](x[0, t]) for w, e in zip(weights, top.indices[t], strict=True)
        )
        torch.testing.assert_close(made[0, t], expected)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("alternate", [0, 2]), ("all", [0, 1, 2]), ([2], [2]), ([2, 0], [0, 2]), ([0, 1, 2], [0, 1, 2])],
)
def test_layers_are_an_option(language, layers, chosen):
    assert list(moe(language, layers=layers).layers) == [f"model/layers/{i}/mlp" for i in chosen]


def test_the_balance_is_a_loss_in_training_alone(language):
    part = moe(language)
    read(language)
    assert part.losses() == {}
    part.train()
    read(language)
    found = part.losses()
    assert found["balance"].weight == 0.01
    objective(found).backward()
    assert all(layer.router.weight.grad.abs().max() > 0 for layer in part.each())
    assert part.losses() == {}


def test_the_balance_adds_up_the_layers_and_has_a_term_a_token(language):
    part = moe(language, balance=0.5).train()
    read(language)
    each = [layer.balance.mean for layer in part.each()]
    assert len(each) == 2
    found = part.losses()["balance"]
    assert (float(found.count), found.weight) == (5, 0.5)
    torch.testing.assert_close(found.mean, sum(each))


def test_padding_meets_no_expert_and_counts_for_nothing(language):
    part = moe(language, layers=[0], noise="never", capacity=0.5).train()
    layer = part.each()[0]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 5, 8)
    padded = torch.cat([x, torch.randn(1, 3, 8)], 1).view(2, 4, 8)
    real = (torch.arange(8) < 5).view(2, 4)
    with reading(KINDS):
        alone = language.model.layers[0].mlp(x)
    balance = layer.balance.mean
    with reading(torch.zeros(2, 4, dtype=torch.long), real):
        beside = language.model.layers[0].mlp(padded)
    torch.testing.assert_close(beside[real], alone[0])
    assert not beside[~real].any()
    torch.testing.assert_close(layer.balance.mean, balance)


@pytest.mark.parametrize(("training", "room"), [(True, 1), (False, 4)])
def test_there_is_one_capacity_in_training_and_another_in_use(language, training, room):
    """Five tokens and three experts of which each meets one: 5 / 3 x 0.5 and x 2."""
    part = moe(language, top_k=1, capacity=0.5, eval_capacity=2.0).train(training)
    assert {layer.choose(torch.randn(5, 8)).capacity for layer in part.each()} == {room}


def test_an_expert_that_nobody_meets_gets_a_gradient_of_zeros(language):
    part = moe(language, layers=[0], noise="never").train()
    layer = part.each()[0]
    torch.nn.init.zeros_(layer.router.weight)  # then the first two are chosen by all
    language.requires_grad_(True)
    read(language).sum().backward()
    for e, used in ((0, True), (1, True), (2, False)):
        gradients = [p.grad for p in layer.experts[e].parameters()]
        assert all(gradient is not None for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients) == used


@pytest.mark.parametrize(
    ("options", "accumulated", "ranked"),
    [
        ({}, "keeps the use of its experts alike", None),
        ({"balance": 0.0}, None, None),
        ({"balance": 0.0, "capacity": 1.0}, "has room for a share", "has room for a share"),
    ],
)
def test_it_says_what_of_it_is_of_a_whole_batch(language, options, accumulated, ranked):
    part = moe(language, **options).train()
    for reason, ranks in ((accumulated, False), (ranked, True)):
        found = reasons(part, ranks=ranks, rows=1)
        assert (not found) if reason is None else (reason in found[0])
    assert reasons(part.eval(), ranks=False, rows=1) == []


def test_the_report_tells_use_by_kind_of_token(language):
    part = moe(language, layers=[0])
    for parameter in part.each()[0].router.parameters():
        torch.nn.init.zeros_(parameter)  # then the first two are chosen by all
    read(language)
    assert part.report() == {
        "model.layers.0.mlp": {kind: [0.5, 0.5, 0.0] for kind in ("text", "read", "written")}
    }
    assert part.report() == {"model.layers.0.mlp": {}}


def test_the_report_adds_up_what_was_read_since_the_last(language):
    """Two tokens of text that choose expert 0 first and 1 second, and six the other way round."""
    part = moe(language, layers=[0])
    router, mlp = part.each()[0].router, language.model.layers[0].mlp
    torch.nn.init.zeros_(router.weight)
    with torch.no_grad():
        router.weight[0, 0], router.weight[2, 0], router.weight[1, 1] = 1.0, -5.0, 0.5
    for count, kinds, x in ((2, [0, 0], 1.0), (6, [0] * 5 + [2], -1.0)):
        state = torch.zeros(1, count, 8)
        state[..., 0] = x
        with reading(torch.tensor([kinds])):
            mlp(state)
    # x = 1: expert 0, then 1. x = -1: expert 2, then 1.
    assert part.report() == {
        "model.layers.0.mlp": {"text": [2 / 14, 7 / 14, 5 / 14], "written": [0.0, 0.5, 0.5]}
    }
    assert part.report() == {"model.layers.0.mlp": {}}
    part.train()
    with reading(torch.tensor([[0]])):
        mlp(torch.zeros(1, 1, 8))
    assert part.report() == {"model.layers.0.mlp": {}}  # only what is read in use


def test_the_residual_router_weighs_the_experts_first_and_the_network_second(language):
    layer = moe(language, residual=True, layers=[0], experts=2).each()[0]
    for parameter in [*layer.experts.parameters(), *layer.mixer.parameters()]:
        torch.nn.init.normal_(parameter)
    x, mlp = torch.randn(1, 5, 8), language.model.layers[0].mlp
    gates = (x @ layer.router.weight.T).softmax(-1)
    experts = sum(gates[..., e, None] * layer.experts[e](x) for e in range(2))
    shares = (x @ layer.mixer.weight.T + layer.mixer.bias).softmax(-1)
    with reading(KINDS):
        out = mlp(x)
    torch.testing.assert_close(
        out, shares[..., 0, None] * experts + shares[..., 1, None] * type(mlp).forward(mlp, x)
    )


def test_the_residual_network_is_met_by_all(language):
    before = read(language)
    part = moe(language, residual=True)
    torch.testing.assert_close(read(language), before)
    for layer in part.each():
        torch.nn.init.constant_(layer.mixer.bias[1:], 100)
        for parameter in layer.experts.parameters():
            torch.nn.init.normal_(parameter)
    torch.testing.assert_close(read(language), before)


def test_gpt2_can_be_upcycled_and_opt_says_why_not():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=20)).eval()
    before = read(gpt2)
    moe(gpt2)
    torch.testing.assert_close(read(gpt2), before)
    opt = OPTForCausalLM(
        OPTConfig(hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=8)
    )
    with pytest.raises(RecipeError, match="OPTDecoderLayer has no feed-forward network of its own"):
        moe(opt)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": [3]},
        {"layers": [-1]},
        {"layers": [1, 1]},
        {"layers": []},
        {"experts": 1},
        {"experts": [3]},
        {"experts": []},
        {"experts": [3, 1]},
    ],
)
def test_options_that_contradict_the_model_are_refused(language, options):
    with pytest.raises(RecipeError, match="routing 'moe'"):
        moe(language, **options)
