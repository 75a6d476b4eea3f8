"""What verify says of cases: made here, so that no case files are needed."""

import json

import pytest
import torch
from safetensors.torch import save_file

from chiasm.errors import CheckpointError
from chiasm.interop import summary, verify
from chiasm.interop.parity.cases import read_cases
from chiasm.interop.parity.verify import compared, replays, replays_table


def case(folder, name="one", outputs=None, tensors=None, **told):
    outputs = {"y": {"atol": 0.1, "rtol": 0.01}} if outputs is None else outputs
    tensors = {"output/y": torch.tensor([1.0, 100.0])} if tensors is None else tensors
    content = {
        "system": "toy",
        "case": name,
        "reference": {"class": "Toy"},
        "config": {},
        "outputs": outputs,
        **told,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.json"


def judged(path, made):
    return compared(read_cases([path])[0], {"y": torch.tensor(made)})[0]


def test_the_tolerance_is_absolute_plus_relative(tmp_path):
    path = case(tmp_path)
    assert judged(path, [1.1, 101.0]).agrees
    assert not judged(path, [1.12, 100.0]).agrees
    assert not judged(path, [1.0, float("nan")]).agrees
    assert not judged(path, [1.0]).agrees
    far = judged(path, [1.0, 103.0])
    assert far.error == pytest.approx(3.0)
    assert far.tolerance == pytest.approx(1.1)


def test_exact_outputs_count_what_differs(tmp_path):
    path = case(tmp_path, outputs={"y": {"exact": True}}, tensors={"output/y": torch.tensor([1, 2, 3])})
    assert judged(path, [1, 2, 3]).agrees
    assert judged(path, [1, 0, 0]).error == 2


def test_padding_is_not_compared(tmp_path):
    tensors = {"output/y": torch.tensor([1.0, 0.0]), "input/mask": torch.tensor([1, 0])}
    path = case(tmp_path, tensors=tensors, zero_where_mask_is_0={"y": "input/mask"})
    assert judged(path, [1.0, 7.0]).agrees


def test_generated_weights_and_shared_ones_are_made_from_the_seed(tmp_path):
    generated = {"seed": 3, "tensors": [["w", [2, 2], 1.0, 0.5]]}
    tensors = read_cases([case(tmp_path, generated=generated, alias={"v": "w"})])[0].tensors
    assert tensors["v"] is tensors["w"]
    assert tensors["w"].dtype == torch.float32
    assert ((tensors["w"] >= 0.5) & (tensors["w"] <= 1.5)).all()


def test_unknown_systems_and_failing_replays_are_results_that_say_so(tmp_path):
    @replays("toy", "Good")
    def good(case):
        return {"y": torch.tensor([1.0, 100.0])}

    @replays("toy", "Good but broken")
    def broken(case):
        raise ValueError("out of order")

    @replays_table("toy")
    def double(case):
        return [{"x": row["x"], "y": 2 * row["x"]} for row in case.record["rows"]]

    case(tmp_path, "a", reference={"class": "Good (small)"})
    case(tmp_path, "b", reference={"class": "Good but broken"})
    case(tmp_path, "c", system="riddle")
    rows = {
        "system": "toy",
        "case": "d",
        "kind": "tile table",
        "parameters": {},
        "rows": [{"x": 1, "y": 2}, {"x": 2, "y": 5}],
    }
    (tmp_path / "d.json").write_text(json.dumps(rows))
    results = verify([tmp_path])
    assert [each.agrees for each in results] == [True, False, False, False]
    assert "out of order" in results[1].problem
    assert "the system 'riddle' is unknown" in results[2].problem
    assert "1 of 2 differ; row 1: y 4 instead of 5" in str(results[3])
    assert summary(results) == "1 of 4 cases agree"
    assert results[0].as_data()["outputs"][0]["name"] == "y"


def test_a_path_without_cases_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="holds no parity cases"):
        verify([tmp_path])
    with pytest.raises(CheckpointError, match="there is no parity case"):
        verify([tmp_path / "x.json"])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"x\.json is not the JSON of a parity case"):
        verify([tmp_path])
