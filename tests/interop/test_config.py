"""Every key of an original's config is read, known to be without effect, or refused by name."""

import pytest
import torch

from chiasm.errors import CheckpointError
from chiasm.interop import Family, Original, load
from chiasm.interop.config import Config, plain, refuse_unread
from chiasm.interop.mapping import NameMap


def told(config, without_effect=()):
    """The sentence that refuses what is left of a config, or None."""
    try:
        refuse_unread(config, dict.fromkeys(without_effect, "a reason"), "the checkpoint", "'it'")
    except CheckpointError as error:
        return str(error)
    return None


def test_what_was_read_is_accounted_for_and_the_rest_is_named_with_its_value():
    config = Config({"width": 8, "depth": 2, "act": "gelu"})
    assert config["width"] == 8
    assert config.get("depth", 5) == 2
    assert "act = 'gelu'" in told(config)
    assert "width" not in told(config)
    assert "depth" not in told(config)


def test_asking_whether_a_key_is_there_or_how_many_there_are_reads_nothing():
    config = Config({"width": 8})
    assert "width" in config
    assert len(config) == 1
    assert list(config) == ["width"]
    assert config
    assert "width = 8" in told(config)


def test_an_opened_mapping_is_accounted_for_key_by_key_also_within_lists():
    config = Config(
        {"vision": {"width": 8, "norm": {"eps": 1e-6}}, "levels": [{"ch": 1}, {"ch": 2}], "x": {}}
    )
    assert config["vision"]["norm"]
    assert config["levels"][1]["ch"] == 2
    assert config["x"] == {}
    assert list(config.unread()) == ["vision.width", "vision.norm.eps", "levels.0.ch"]


def test_a_mapping_that_nobody_opened_is_named_once():
    assert Config({"vision": {"width": 8, "depth": 1}}).unread() == {"vision": {"width": 8, "depth": 1}}


def test_copying_a_level_reads_this_level_alone_and_plain_reads_all_below():
    config = Config({"vision": {"width": 8}, "text": {"width": 4, "rope": [{"theta": 1}]}})
    copied = {**config}
    assert list(config.unread()) == ["vision.width", "text.width", "text.rope"]
    whole = plain(copied["text"])
    assert whole == {"width": 4, "rope": [{"theta": 1}]}
    assert type(whole["rope"][0]) is dict
    assert list(config.unread()) == ["vision.width"]


def test_a_listed_key_stands_for_all_below_it_and_a_starred_one_for_any_depth():
    config = Config({"loss": {"a": 1, "b": {"c": 2}}, "vision": {"dropout": 0.1, "width": 8}})
    assert config["vision"]
    assert config["loss"]
    sentence = told(config, ["loss", "*.dropout"])
    assert sentence.count("=") == 1
    assert "vision.width = 8" in sentence
    assert told(config, ["loss", "*.dropout", "vision.width"]) is None


def test_an_option_known_with_some_values_is_refused_with_another_by_its_whole_name():
    config = Config({"vision": {"bias": True, "pool": "cls", "scale": 1}})["vision"]
    assert config.only("bias", True) is True
    assert config.only("pool", "mean", "cls") == "cls"
    assert config.only("scale", 1.0) == 1
    assert config.only("absent", None) is None
    with pytest.raises(CheckpointError, match=r"vision\.bias is True, but is known as False or None only"):
        config.only("bias", False, None)
    with pytest.raises(CheckpointError, match=r"vision\.absent is 4, but is known as 3 only"):
        config.only("absent", 3, default=4)
    assert not config.unread()


def test_true_is_not_the_number_one():
    with pytest.raises(CheckpointError, match="groups is True"):
        Config({"groups": True}).only("groups", 1)


class Small(Family):
    name, without_effect = "small", {"dropout": "only in training"}

    def model(self, config, keys=()):
        spec = {"type": "vqgan", "size": config["size"], "width": 32, "multipliers": [1]}
        return {"image_tokenizer": {**spec, "quantizer": {"type": "nearest"}}}

    def names(self, config, keys=()):
        return NameMap()


def test_loading_refuses_a_key_that_the_family_does_not_account_for():
    with pytest.raises(
        CheckpointError, match=r"'small' neither uses nor knows to be without effect: tilt = 3"
    ):
        load(Small(), Original({"size": 16, "dropout": 0.5, "tilt": 3}, {"a": torch.ones(1)}))
    with pytest.raises(CheckpointError, match="tensors without a place"):  # that far it comes without the key
        load(Small(), Original({"size": 16, "dropout": 0.5}, {"a": torch.ones(1)}))
