"""The settings of a network: bounds, what they change of a configuration, and that node and commands share them."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from salmonn_node.commands.network_flags import add_network_flags, network_of
from salmonn_node.model.checkpoint import config_of
from salmonn_node.model.network_settings import NetworkSettings, load_network
from salmonn_node.model.profiles import profile
from salmonn_node.runtime.build import build_backend
from salmonn_node.runtime.settings import Settings


def test_nothing_set_changes_nothing():
    for config in (config_of("tiny"), profile("qwen3_vl_4b")):
        assert NetworkSettings().changed(config) == config


def test_a_budget_brings_its_step_and_its_time_marks():
    config = profile("video_salmonn_s_8b")
    assert NetworkSettings(visual_tokens=16_384, audio_tokens=4_096).changed(config).max_time_marks == 1_024
    small = NetworkSettings(visual_tokens=4_096, audio_tokens=1_000, prefill="cached", weights="int4").changed(config)
    assert (small.memory.visual_tokens, small.memory.visual_step, small.max_time_marks) == (4_096, 1_024, 256)
    assert (small.memory.audio_tokens, small.memory.audio_step) == (1_000, 250)
    assert (small.prefill, small.weights) == ("cached", "int4")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"weights": "int2"}, "weights: 'int2' is none of full, int8, int4"),
        ({"device": "tpu"}, "device: 'tpu' is none of auto, cpu, cuda"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0 is outside 1 to 4096"),
        ({"visual_tokens": -1}, "visual_tokens: -1 is outside"),
    ],
)
def test_values_out_of_bounds_are_named(values, reason):
    with pytest.raises(ValueError, match=reason):
        NetworkSettings(**values)


def test_flags_and_defaults_are_those_of_the_settings():
    parser = argparse.ArgumentParser()
    add_network_flags(parser)
    assert network_of(parser.parse_args([])) == NetworkSettings()
    args = parser.parse_args(["--weights", "int8", "--visual-tokens", "512", "--device", "cpu"])
    assert network_of(args) == NetworkSettings(weights="int8", visual_tokens=512, device="cpu")


def test_a_network_is_loaded_as_set():
    model = load_network(NetworkSettings(visual_tokens=512, weights="int4", device="cpu"))
    assert model.checkpoint.id.endswith("-int4")
    assert model.new_memory().configs[0].budget == 512


def test_configure_downloads_nothing_and_names_the_command(tmp_path, monkeypatch):
    def no_request(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", no_request)
    settings = Settings(network=NetworkSettings(checkpoint="qwen3-vl-8b"), persistence=False)
    with pytest.raises(FileNotFoundError, match="Get it with: salmonn checkpoint get qwen3-vl-8b"):
        build_backend(settings)


@pytest.mark.ros
def test_the_node_has_a_parameter_for_each_setting():
    from salmonn_node.ros.parameters import ENTRIES

    for entry in dataclasses.fields(NetworkSettings):
        assert ENTRIES[entry.name].default == entry.default
        assert ENTRIES[entry.name].text == entry.metadata["text"]
