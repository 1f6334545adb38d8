"""A stock Qwen3-VL is asked in the prompt that transformers' processor renders; families and overrides are read."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoTokenizer
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from salmonn_node.lab.random_weights import write_folder
from salmonn_node.model.chat_format import FAMILIES, ChatFormat, chat_format, overridden
from salmonn_node.model.checkpoint import load
from salmonn_node.stream.answers import AnswerType
from salmonn_node.stream.observations import SECOND_NS, Frame

QUESTION = "Where did you last see the red backpack?"
FRAMES = 6
PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    write_folder(folder)
    return folder


def rendered_ids(folder, grid: tuple[int, int], text: str, *, whole_placeholder: bool) -> list[int]:
    """Ids that transformers' processor gives for one video of FRAMES frames, one a second, and a text.

    The processor's own methods run; only its video processor, which needs torchvision, is a stand-in with the two
    numbers that they read from it.

    Args:
        folder: with tokenizer and chat template.
        grid: of a temporal patch before merging.
        text: of the question.
        whole_placeholder: the video takes the place of all three placeholder tokens, as in transformers before 5.10,
            with which the network was published; else of the middle one, as since.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    processor.tokenizer, processor.video_processor = tokenizer, SimpleNamespace(merge_size=2, temporal_patch_size=2)
    for name in ("image", "video"):
        setattr(processor, f"{name}_token", f"<|{name}_pad|>")
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    content = [{"type": "video"}, {"type": "text", "text": text}]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    seen = {
        "video_grid_thw": np.array([[FRAMES // 2, *grid]]),
        "video_metadata": [VideoMetadata(total_num_frames=FRAMES, fps=1.0, frames_indices=list(range(FRAMES)))],
    }
    video = processor.replace_video_token(seen, 0)
    if whole_placeholder:
        prompt = prompt.replace(PLACEHOLDER, video)
    else:
        prompt = processor.get_text_with_replacements([prompt], [], [video], [])[0][0]
    return tokenizer(prompt, add_special_tokens=False)["input_ids"]


def prompt_ids(folder, question: str) -> tuple[list[int], tuple[int, int]]:
    """Ids of our prompt for FRAMES frames, one a second, and the grid of a patch before merging."""
    model = load(str(folder))
    memory = model.new_memory()
    rng = np.random.default_rng(0)
    for second in range(FRAMES):
        model.observe_frame(
            memory, Frame((1 + second) * SECOND_NS, "camera", rng.integers(0, 255, (96, 160, 3), np.uint8))
        )
    view = model.view(memory)
    high, wide = view.visual.grid[0].tolist()
    return model.prompt(question, view).ids.tolist(), (2 * high, 2 * wide)


@pytest.mark.parametrize("kind", [AnswerType.TEXT, AnswerType.BINARY, AnswerType.CHOICE])
def test_a_stock_folder_is_asked_in_the_published_prompt(stock, kind):
    question = load(str(stock)).config.chat.asked(QUESTION, kind.name, ("kitchen", "hall"))
    ours, grid = prompt_ids(stock, question)
    assert ours == rendered_ids(stock, grid, question, whole_placeholder=True)


def test_an_override_asks_in_the_prompt_of_newer_processors(stock, tmp_path):
    for file in stock.iterdir():
        (tmp_path / file.name).symlink_to(file)
    chat = {"before_video": "<|vision_start|>", "after_video": "<|vision_end|>"}
    (tmp_path / "calibration.json").write_text(json.dumps({"checkpoint": "", "chat": chat}))
    ours, grid = prompt_ids(tmp_path, QUESTION)
    assert ours == rendered_ids(tmp_path, grid, QUESTION, whole_placeholder=False)


def test_a_system_turn_comes_first():
    chat = ChatFormat(system="You are a robot.")
    assert chat.opening == "<|im_start|>system\nYou are a robot.<|im_end|>\n<|im_start|>user\n"


def test_every_family_can_be_read_and_instructs_known_types():
    names = {kind.name for kind in AnswerType}
    for file in FAMILIES.glob("*.yaml"):
        assert set(chat_format(file.stem).instructions) <= names
    with pytest.raises(ValueError, match="'gpt' is none of qwen3_vl, tiny, tiny_without_head, video_salmonn_s"):
        chat_format("gpt")


def test_the_tiny_network_and_the_release_keep_the_released_prompt():
    released = ChatFormat()
    assert chat_format("tiny") == released
    release = chat_format("video_salmonn_s")
    assert (release.opening, release.split("why?"), release.answer_tokens) == (
        released.opening,
        ("", "\nwhy?"),
        released.answer_tokens,
    )
    assert released.split("look <image> there") == ("look ", " there")


def test_a_calibration_replaces_single_values_and_faults_are_named(tmp_path):
    file = tmp_path / "calibration.json"
    family = chat_format("qwen3_vl")
    file.write_text(json.dumps({"chat": {"instructions": {"BINARY": "Say yes or no."}}}))
    changed = overridden(family, file)
    assert changed.asked("Is it?", "BINARY") == "Is it?\nSay yes or no."
    assert changed.instructions["COUNT"] == family.instructions["COUNT"]
    for text, fault in (
        ('{"chat": {"systems": ""}}', "systems"),
        ('{"chat": 3}', "expected an object"),
        ("[]", "not a JSON object"),
        ("{", "not a JSON object"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=fault):
            overridden(family, file)


def test_what_says_unknown_is_recognised():
    chat = chat_format("qwen3_vl")
    assert chat.unknown(" Not observed.")
    assert chat.unknown("NOT OBSERVED")
    assert not chat.unknown("It was not observed in the kitchen but in the hall")
    assert not ChatFormat().unknown("")
