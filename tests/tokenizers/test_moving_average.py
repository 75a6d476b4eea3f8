"""The codebook's arithmetic, checked against loops written out, and what keeps it alive."""

import copy
import inspect

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional

from chiasm.tokenizers.moving_average import VectorQuantizer, in_order, turned


def grids(count=6, width=3, seed=0):
    return torch.randn(count, 2, 2, width, generator=torch.Generator().manual_seed(seed))


def step(quantizer, *batches):
    """One step over these micro-batches; what was quantized of the last."""
    for inputs in batches:
        found = quantizer(inputs)
    quantizer.after_step()
    return found


def test_every_vector_gets_its_nearest_code():
    quantizer = VectorQuantizer(7, 3).eval()
    inputs = grids()
    found = quantizer(inputs)
    for place, vector in enumerate(inputs.view(-1, 3)):
        distances = [float((vector - code).square().sum()) for code in quantizer.vectors]
        assert found.codes.flatten()[place] == distances.index(min(distances))
    assert torch.allclose(found.vectors, quantizer.vectors[found.codes])
    assert torch.allclose(found.commitment, (inputs - quantizer.vectors[found.codes]).square())


def test_the_cosine_codebook_looks_at_direction_only():
    quantizer = VectorQuantizer(7, 3, cosine=True).train()
    inputs = grids()
    step(quantizer, inputs)
    found = quantizer.eval()(inputs)
    assert torch.equal(found.codes, quantizer(5 * inputs).codes)
    similar = functional.normalize(inputs, dim=-1) @ functional.normalize(quantizer.vectors, dim=-1).T
    assert torch.equal(found.codes, similar.argmax(-1))
    assert torch.allclose(quantizer.vectors.norm(dim=1), torch.ones(7))


def test_a_look_up_in_parts_finds_the_same(monkeypatch):
    quantizer = VectorQuantizer(7, 3)
    inputs = grids()
    whole = quantizer.encode(inputs)
    monkeypatch.setattr("chiasm.tokenizers.moving_average._LOOKUP_ELEMENTS", 7 * 5)
    assert torch.equal(quantizer.encode(inputs), whole)


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_the_moving_averages_equal_a_loop(epsilon):
    """Each code is its sum over its count, which smoothing by a large epsilon takes towards that of the others."""
    decay, size = 0.9, 5
    quantizer = VectorQuantizer(size, 3, decay=decay, revive_after=0, epsilon=epsilon).train()
    step(quantizer, grids(seed=1))  # starts the codebook
    counts, sums, codes = (t.double() for t in (quantizer.counts, quantizer.sums, quantizer.vectors))
    frequency = torch.zeros(size).double()
    for seed in range(2, 6):
        inputs = grids(seed=seed)
        step(quantizer, inputs)
        hits, totals = [0.0] * size, [torch.zeros(3).double() for _ in range(size)]
        for vector in inputs.double().view(-1, 3):
            chosen = int((vector - codes).square().sum(1).argmin())
            hits[chosen] += 1
            totals[chosen] = totals[chosen] + vector
        for i in range(size):
            counts[i] = decay * counts[i] + (1 - decay) * hits[i]
            frequency[i] = decay * frequency[i] + (1 - decay) * hits[i]
            sums[i] = decay * sums[i] + (1 - decay) * totals[i]
        all_uses = counts.sum()
        for i in range(size):
            codes[i] = sums[i] / ((counts[i] + epsilon) / (all_uses + size * epsilon) * all_uses)
        assert torch.allclose(quantizer.vectors.double(), codes, atol=1e-5)
        assert torch.allclose(quantizer.frequency.double(), frequency)


def test_gradients_pass_straight_through_and_never_reach_the_codebook():
    quantizer = VectorQuantizer(7, 3).train()
    step(quantizer, grids(seed=1))
    inputs = grids().requires_grad_()
    (3 * quantizer(inputs).vectors).sum().backward()
    assert torch.equal(inputs.grad, torch.full_like(inputs, 3.0))
    assert list(quantizer.parameters()) == []


def test_with_rotation_the_gradient_turns_with_the_code():
    """A gradient along the code comes out along the input, scaled as the lengths are."""
    quantizer = VectorQuantizer(2, 2, rotation=True).eval()
    quantizer.vectors.copy_(torch.tensor([[0.0, 3.0], [-9.0, -9.0]]))
    inputs = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2).requires_grad_()
    quantized = quantizer(inputs)
    assert torch.allclose(quantized.vectors.flatten(), torch.tensor([0.0, 3.0]), atol=1e-6)
    (quantized.vectors * torch.tensor([0.0, 1.0])).sum().backward()
    assert torch.allclose(inputs.grad.flatten(), torch.tensor([1.5, 0.0]), atol=1e-6)


def test_autocast_does_not_touch_the_codebook():
    inputs = grids(50)
    plain, cast = VectorQuantizer(16, 3), VectorQuantizer(16, 3)
    cast.load_state_dict(plain.state_dict())
    torch.manual_seed(0)
    step(plain.train(), inputs)
    expected = step(plain, inputs)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        step(cast.train(), inputs)
        found = step(cast, inputs)
    assert torch.equal(found.codes, expected.codes)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), cast.state_dict().values()))


def test_it_starts_from_the_first_batch():
    clusters = torch.tensor([[5.0, 5], [5, -5], [-5, 5], [-5, -5]])
    inputs = (clusters.repeat(40, 1) + 0.1 * torch.randn(160, 2)).view(40, 2, 2, 2)
    quantizer = VectorQuantizer(16, 2).train()
    step(quantizer, inputs)
    assert quantizer(inputs).commitment.mean() < 0.02
    assert torch.cdist(clusters, quantizer.vectors).min(1).values.max() < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_the_start_settles_on_a_lone_vector_whatever_vectors_it_begins_at(seed):
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(2, 2).train()
    step(quantizer, torch.tensor([[0.0, 0], [4, 0], [5, 0], [30, 0]]).view(1, 2, 2, 2))
    torch.testing.assert_close(quantizer.vectors[:, 0].sort().values, torch.tensor([3.0, 30.0]))


def test_a_codebook_larger_than_the_first_batch_can_start():
    quantizer = VectorQuantizer(100, 3).train()
    step(quantizer, grids())
    assert quantizer(grids()).commitment.max() < 1e-10


@pytest.mark.parametrize(("revive_after", "alive"), [(0, False), (10, True)])
def test_a_codebook_left_behind_by_its_encoder_lives_only_with_revival(revive_after, alive):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(64, 4, revive_after=revive_after).train()
    for _ in range(5):
        step(quantizer, 0.1 * torch.randn(32, 4, 4, 4))  # all encodings lie close together at first
    assert quantizer.health()["codebook_use"] > 0.9
    for _ in range(200):
        error = step(quantizer, torch.randn(32, 4, 4, 4) + 10).commitment.mean()  # then the encoder moves on
    health = quantizer.health()
    assert (health["codebook_use"] > 0.9) == alive
    assert (health["perplexity"] > 32) == alive
    assert bool((quantizer.last_revival > 5).any()) == alive
    assert (error < 0.5) == alive


def test_looking_does_not_change_it():
    quantizer = VectorQuantizer(7, 3).train()
    step(quantizer, grids())
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.encode(grids(seed=1))
    quantizer.eval()(grids(seed=2))
    step(quantizer.train(), grids(0))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_health_counts_recent_use():
    quantizer = VectorQuantizer(4, 1, window=10, revive_after=0).train()
    places = torch.tensor([0.0, 1, 2, 3]).view(1, 2, 2, 1)
    assert quantizer.health() == {}
    step(quantizer, places)
    step(quantizer, places)
    assert quantizer.health()["codebook_use"] == 1
    assert quantizer.health()["perplexity"] == pytest.approx(4)
    for _ in range(10):
        step(quantizer, places[:, :1])
    assert quantizer.health()["codebook_use"] == 0.5
    assert 2 < quantizer.health()["perplexity"] < 4


def learn_on_a_rank(rank, folder, world, batches):
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
        )
    quantizer = VectorQuantizer(16, 3, revive_after=3).train()
    quantizer.load_state_dict(torch.load(folder / "start.pt"))
    for batch in batches:
        step(quantizer, *batch.tensor_split(world)[rank].split(2))
    torch.save(quantizer.state_dict(), folder / f"{world}-{rank}.pt")
    if world > 1:
        distributed.destroy_process_group()


@pytest.mark.parametrize("sizes", [(8,), (2, 6), (1,) * 8])
@pytest.mark.parametrize("cosine", [False, True])
def test_a_step_is_the_same_however_its_vectors_are_shared_out(sizes, cosine):
    """From the start on: settling, the start as cluster centres, averages and revival count steps."""
    torch.manual_seed(0)
    fresh = VectorQuantizer(16, 3, settle=2, revive_after=3, cosine=cosine).train()
    steps = [0.1 * grids(8, seed=seed) if seed < 4 else grids(8, seed=seed) + 2 for seed in range(10)]
    states = []
    for each in ((8,), sizes):
        quantizer = copy.deepcopy(fresh)
        torch.manual_seed(1)
        for inputs in steps:
            step(quantizer, *inputs.split(each))
        states.append(quantizer.state_dict())
    assert int(states[0]["batches"]) == 10
    assert (states[0]["last_revival"] > 0).any()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_a_step_that_was_skipped_teaches_nothing():
    quantizer = VectorQuantizer(7, 3).train()
    step(quantizer, grids())
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.full((1, 2, 2, 3), torch.nan))
    quantizer.forget()
    quantizer.after_step()
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("seed", range(3))
def test_what_the_codebook_represents_worst_is_likeliest_to_be_given_a_code(seed):
    """Of two thousand vectors one is far from every code: a dead code goes there."""
    quantizer = VectorQuantizer(3, 1, revive_after=2).train()
    step(quantizer, torch.zeros(4, 1))
    for state in (quantizer.vectors, quantizer.sums):
        state.copy_(torch.tensor([[0.0], [5.0], [1e4]]))
    quantizer.counts.fill_(1.0)
    torch.manual_seed(seed)
    inputs = torch.cat([torch.zeros(1000, 1), torch.full((1000, 1), 5.0), torch.full((1, 1), 60.0)])
    for _ in range(2):
        step(quantizer, inputs)
    assert quantizer.last_revival.tolist()[2] == 3
    assert quantizer.vectors[2].item() == 60.0


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(6, 6), (6, 1)])
def test_two_ranks_learn_the_codebook_of_one(tmp_path, counts):
    """Of a batch of one grid the second rank gets nothing, and takes part all the same."""
    started = VectorQuantizer(16, 3).train()
    step(started, grids())
    torch.save(started.state_dict(), tmp_path / "start.pt")
    two_ranks_equal_one(tmp_path, [grids(count, seed=seed) for seed, count in enumerate(counts, 1)])


@pytest.mark.slow
def test_two_ranks_start_and_revive_the_codes_of_one(tmp_path):
    torch.save(VectorQuantizer(16, 3).state_dict(), tmp_path / "start.pt")
    first = two_ranks_equal_one(tmp_path, [grids(), *[grids(1)] * 5])
    assert (first["last_revival"] > 0).any()


def two_ranks_equal_one(folder, batches):
    multiprocessing.spawn(learn_on_a_rank, (folder, 2, batches), nprocs=2)
    learn_on_a_rank(0, folder, 1, batches)
    first, second, alone = (torch.load(folder / f"{name}.pt") for name in ("2-0", "2-1", "1-0"))
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name], rtol=1e-6, atol=1e-6, msg=name)
    return first


def dead_at(step_count, *, revive_after=2):
    """A codebook of which code 1 was far from every vector for so many steps, and those vectors."""
    quantizer = VectorQuantizer(2, 1, revive_after=revive_after).train()
    inputs = torch.tensor([[-1.0], [1.0]])
    step(quantizer, inputs)
    quantizer.vectors[1] = quantizer.sums[1] = 1e4
    quantizer.counts[1] = 1.0
    for _ in range(step_count):
        step(quantizer, inputs)
    return quantizer, inputs


def test_a_revived_code_weighs_one_use_so_that_it_moves_freely_to_what_chooses_it_next():
    quantizer, _ = dead_at(2)
    assert quantizer.counts[1] == 1.0
    assert torch.equal(quantizer.sums[1], quantizer.vectors[1])
    assert quantizer.vectors[1].abs() == 1.0


def test_revival_leaves_the_record_of_use_alone():
    revived, plain = dead_at(2)[0], dead_at(2, revive_after=0)[0]
    assert torch.equal(revived.frequency, plain.frequency)
    assert torch.equal(revived.last_use, plain.last_use)


def test_a_revived_code_has_as_long_as_any_other_before_it_is_revived_again():
    quantizer, inputs = dead_at(2)
    first = int(quantizer.last_revival[1])
    quantizer.vectors[1] = quantizer.sums[1] = 1e4  # away again, and unused from now on
    step(quantizer, inputs)
    assert quantizer.last_revival[1] == first
    step(quantizer, inputs)
    assert quantizer.last_revival[1] == first + 2


def test_a_code_that_begins_without_vectors_weighs_one_use():
    quantizer = VectorQuantizer(3, 1, revive_after=0).train()
    step(quantizer, torch.tensor([[2.0]]).expand(4, 1))  # all begin at one place, which the first code takes
    assert sorted(quantizer.counts.tolist()) == [1.0, 1.0, 4.0]
    assert torch.equal(quantizer.sums, quantizer.vectors * quantizer.counts[:, None])


def test_codes_on_the_sphere_stay_there_when_they_learn():
    quantizer = VectorQuantizer(4, 3, cosine=True, revive_after=0).train()
    for seed in range(3):
        step(quantizer, grids(seed=seed))
    assert torch.allclose(quantizer.vectors.norm(dim=1), torch.ones(4))
    assert not torch.allclose(quantizer.sums.norm(dim=1), quantizer.counts)  # sums of directions that differ


def test_by_default_it_decays_and_revives_as_documented():
    """A hundredth is new each step, as in VQ-VAE-2; the first step settles; a code may be idle for twenty."""
    options = inspect.signature(VectorQuantizer).parameters.values()
    assert {each.name: each.default for each in options if each.default is not each.empty} == {
        "decay": 0.99,
        "settle": 0,
        "revive_after": 20,
        "cosine": False,
        "rotation": False,
        "epsilon": 1e-5,
        "window": 100,
    }
    assert [VectorQuantizer(2, 1, settle=settle).settle for settle in (0, 1, 5)] == [1, 1, 5]


def test_a_rotation_turns_in_the_plane_of_vector_and_code_and_scales_to_the_codes_length():
    """Written out: what lies across the plane stays, what lies in it turns by the angle between the two."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        inputs, code = (2 * torch.randn(4, generator=generator).double() for _ in range(2))
        source, target = inputs / inputs.norm(), code / code.norm()
        across = (target - (target @ source) * source) / (target - (target @ source) * source).norm()
        cosine, sine = target @ source, target @ across
        plane = torch.stack([source, across], 1)
        turn = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
        matrix = torch.eye(4).double() - plane @ plane.T + plane @ turn @ plane.T
        matrix = matrix * code.norm() / inputs.norm()
        inputs.requires_grad_()
        made = turned(inputs, code)
        torch.testing.assert_close(made.detach(), code)
        upstream = torch.randn(4, generator=generator).double()
        (made @ upstream).backward()
        torch.testing.assert_close(inputs.grad, matrix.T @ upstream)


def test_a_vector_or_code_without_a_length_is_turned_without_nonsense():
    inputs = torch.zeros(2, 3, requires_grad=True)
    made = turned(inputs, torch.tensor([[1.0, 0, 0], [0.0, 0, 0]]))
    made.sum().backward()
    assert torch.isfinite(made).all()
    assert torch.isfinite(inputs.grad).all()


def test_rows_are_put_in_the_order_of_their_first_number_and_equal_ones_stay():
    rows = torch.tensor([[2.0, 0.0], [1.0, 1.0], [2.0, 2.0], [-1.0, 3.0]])
    assert in_order(rows)[:, 1].tolist() == [3.0, 1.0, 0.0, 2.0]


def test_a_use_or_a_revival_counts_for_as_many_steps_as_the_window_is_long():
    quantizer = VectorQuantizer(2, 1, window=3, revive_after=0).train()
    step(quantizer, torch.tensor([[-1.0], [1.0]]))
    assert quantizer.health() == {}  # the codes have only begun
    uses = []
    for inputs in ([[-1.0], [1.0]], *[[[-1.0]]] * 4):
        step(quantizer, torch.tensor(inputs))
        uses.append(quantizer.health()["codebook_use"])
    assert uses == [1.0, 1.0, 1.0, 0.5, 0.5]
    revived = dead_at(2)[0]
    revived.window, revived.last_revival[1] = 3, 4
    counts = []
    for batches in (4, 6, 7):
        revived.batches.fill_(batches)
        counts.append(revived.health()["revived"])
    assert counts == [1.0, 1.0, 0.0]
    fresh = VectorQuantizer(4, 1, window=5)
    fresh.batches.fill_(2)
    assert fresh.health() == {"codebook_use": 0.0, "perplexity": 1.0, "revived": 0.0}


def test_codes_begin_as_cluster_centres_with_the_uses_and_sums_of_their_vectors():
    centres, spread = torch.tensor([-30.0, 0.0, 50.0]), torch.tensor([-1.0, 0.0, 1.0, 2.0])
    inputs = (centres[:, None] + spread).view(-1, 1)
    torch.manual_seed(0)
    for _ in range(5):
        quantizer = VectorQuantizer(3, 1).train()
        step(quantizer, inputs)
        found = quantizer.vectors.flatten().sort()
        if quantizer.counts.eq(4).all():  # k-means may end in two centres of one cluster; not always
            torch.testing.assert_close(found.values, centres + 0.5)
            torch.testing.assert_close(quantizer.sums, quantizer.vectors * 4)
            return
    pytest.fail("five starts, and none found the three clusters")


def test_codes_begin_at_different_vectors_while_there_are_any():
    """Seven codes of five vectors: each vector is a code."""
    quantizer, inputs = VectorQuantizer(7, 2).train(), grids(1, 2).view(-1, 2)
    inputs = torch.cat([inputs, torch.full((1, 2), 9.0)])
    step(quantizer, inputs)
    assert torch.cdist(inputs, quantizer.vectors).min(1).values.max() < 1e-6


def test_before_it_settles_vectors_pass_and_have_no_code():
    quantizer, inputs = VectorQuantizer(7, 3, settle=2).train(), grids()
    for _ in range(2):
        found = step(quantizer, inputs)
        assert torch.equal(found.vectors, inputs)
        assert not found.codes.any()
        assert not found.commitment.any()
    assert step(quantizer, inputs).codes.any()
    assert VectorQuantizer(7, 3, settle=2).eval()(inputs).codes.any()
    assert VectorQuantizer(7, 3)(inputs[:0]).codes.shape == (0, 2, 2)
    assert VectorQuantizer(7, 3).encode(inputs[:0]).shape == (0, 2, 2)
