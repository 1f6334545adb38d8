"""How a question is put to the language model: the turn's text, time marks, and the audio pads of each patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_MARKED_PATCHES = 6_000
USER = "<|im_start|>user\n"
END = "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
# The prompt ends with this many tokens of the answer's turn.
ANSWER_TOKENS = 3


def time_mark(seconds: float, source: str = "") -> str:
    """The mark before a temporal patch; the camera's name stands in it when there is more than one."""
    return f"<{source} {seconds:.1f} seconds>" if source else f"<{seconds:.1f} seconds>"


def patch_time(first_s: float, second_s: float | None) -> float:
    """Time of a temporal patch: the mean of its frames' times; a missing second frame repeats the first."""
    return (first_s + (first_s if second_s is None else second_s)) / 2


def split_question(text: str) -> tuple[str, str]:
    """User text before and after the video. Without a placeholder the video comes first, on a line of its own."""
    if "<video>" not in text:
        text = text.replace("<image>", "<video>", 1) if "<image>" in text else "<video>\n" + text
    before, _, after = text.partition("<video>")
    return before, after


def marked_patches(patches: int, with_audio: bool, limit: int = MAX_MARKED_PATCHES) -> list[int]:
    """Patches that carry a time mark, vision_start and vision_end: all, or `limit` of them evenly spaced."""
    if not with_audio or patches <= limit:
        return list(range(patches))
    return np.unique(np.linspace(0, patches - 1, limit).astype(np.int64)).tolist()


def audio_pads(patches: int, tokens: int, second: float | None) -> list[int]:
    """Audio pads of each patch when the whole recording is known, as the release splits them.

    Args:
        patches: number of temporal patches, at least 1.
        tokens: audio tokens in all, 2 a second, including the padding of the last window.
        second: seconds that a patch spans; None spreads the tokens evenly.

    Raises:
        ValueError: the audio ends before the last patch begins.
    """
    if second is not None:
        starts = [int(np.float32(t * second * 2)) for t in range(patches)]
        if tokens < starts[-1]:
            raise ValueError(f"{tokens} audio tokens end before the last patch, which begins at token {starts[-1]}")
        return [b - a for a, b in zip(starts, [*starts[1:], tokens], strict=True)]
    counts = [tokens // patches] * patches
    rest = tokens % patches
    for i in range(1, rest + 1):
        counts[i * patches // rest - 1] += 1
    return counts


def render_turn(
    user: str, marks: Sequence[str], video_pads: int, pads: Sequence[int] | None, answer: str | None = None
) -> str:
    """The whole text of a user's turn over one video, and of the assistant's when `answer` is given."""
    shown = set(marked_patches(len(marks), pads is not None))
    parts = []
    for patch, mark in enumerate(marks):
        body = "<|video_pad|>" * video_pads + "<|audio_pad|>" * (pads[patch] if pads else 0)
        parts.append(f"{mark}<|vision_start|>{body}<|vision_end|>" if patch in shown else body)
    before, after = split_question(user)
    text = USER + before + "".join(parts) + after + END
    return text if answer is None else text + ASSISTANT + answer + END
