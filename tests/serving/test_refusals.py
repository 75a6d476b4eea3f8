"""Errors as replies: the field that is wrong is the one that the error carries, whatever its sentence says."""

import pickle

import pytest

from chiasm.errors import ChiasmError, DataError, naming
from chiasm.serving.refusals import param_of


def test_the_field_is_the_errors_own_and_no_guess_from_its_sentence():
    assert param_of(ChiasmError("note: nothing here names a field")) is None
    error = ChiasmError.of("seed", "it must be a whole number")
    assert (str(error), param_of(error)) == ("seed: it must be a whole number", "seed")
    assert param_of(DataError.of("messages[0].content[1]", "no image")) == "messages.0.content.1"


def test_who_knows_the_field_names_it_and_the_innermost_name_stays():
    with pytest.raises(DataError, match="broken") as error, naming("input"), naming("input[2]"):
        raise DataError("it is broken")
    assert error.value.field == "input[2]"


def test_between_processes_an_error_keeps_its_field():
    error = DataError.of("tools[1]", "no name")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field, again.kind) == (str(error), "tools[1]", "other")
    assert pickle.loads(pickle.dumps(ChiasmError.of("seed", "none"))).field == "seed"
