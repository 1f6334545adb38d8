"""Fit what answers from events need beside the read-outs: names, the question head, and temperatures of confidences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from salmonn_node.lab.training import event_confidence, event_names, question_head
from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.streams import Tokens, joined, quiet_seconds
from salmonn_node.lab.world.truth import SoundTruth
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.video_salmonn_s import VideoSalmonnS


def fit(
    model: VideoSalmonnS,
    heads: EventHeads,
    streams: Sequence[Tokens],
    hours: Sequence[Tokens],
    flats: Sequence[Tokens],
    sounds: Iterable[tuple[Tensor, tuple[SoundTruth, ...]]] = (),
    steps: int = question_head.STEPS,
    most: int = event_confidence.QUESTIONS,
) -> Iterator[tuple[EventParts, Figures]]:
    """Fit the parts and yield them with figures as they come; the last ones are done.

    Args:
        model: the network; nothing of it changes.
        heads: the read-outs that tell events apart.
        streams: encoded streams of training worlds.
        hours: hours of one training flat each.
        flats: others, for the temperatures of confidences, as what was fitted to a stream is too often right there.
        sounds: further audio tokens with what was to be heard.
        steps: of the question head.
        most: most questions about one stream, for the temperatures.
    """
    names = event_names.fit(heads, streams, sounds)
    told = event_names.fit_credibility(names, heads, [*streams, *several(streams), *hours])
    language, width = model.network.language, int(model.config.text["hidden_size"])
    for questions, figures in question_head.fit(language, model.tokenizer, width, steps=steps):
        yield EventParts(heads, names, questions), told | figures
    parts = EventParts(heads, names, questions)
    yield parts, event_confidence.fit_temperatures(model, parts, flats, most)


def several(streams: Sequence[Tokens], at_once: int = 6) -> list[Tokens]:
    """Streams joined to longer ones, each without the sounds that its ends would cut."""
    whole = []
    for stream in streams:
        cuts = quiet_seconds(stream.truth)
        whole.append(stream.piece(int(cuts[0]), int(cuts[-1])))
    return [joined(whole[i : i + at_once]) for i in range(0, len(whole), at_once)]
