"""A question without its wording, and what the questions about the world have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from salmonn_node.evaluation.questions import EvidenceInterval, Expected, Tolerance
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES, Thing
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.truth import START_NS, Episode, Index, SoundTruth
from salmonn_node.stream.observations import SECOND_NS

THING_WORDS = (*COLOURS, *SHAPES, PERSON)
SETTLE_S = 4  # a glimpse this close to a clear look does not make "last" or "first" ambiguous


@dataclass(frozen=True)
class Query:
    """A question without its wording.

    Attributes:
        kind: one of `replay.questions.KINDS`.
        template: key of `phrasings.TEMPLATES`.
        words: values of the template.
        answer_type: name of the answer type.
        expected: the right answer. None if unanswerable.
        evidence: pieces of evidence, of which any one is enough unless `needs_all`.
        choices: choices of a CHOICE question.
        near_miss: if unanswerable, what was there instead.
        pixels: largest share of the picture that the evidence filled.
        snr_db: signal-to-noise ratio of the sound.
        needs_all: all pieces of evidence are needed.
        tolerance: maximum error of a right answer.
    """

    kind: str
    template: str
    words: dict[str, str]
    answer_type: str
    expected: Expected | None = None
    evidence: tuple[EvidenceInterval, ...] = ()
    choices: tuple[str, ...] = ()
    near_miss: str = ""
    pixels: float = 0.0
    snr_db: float | None = None
    needs_all: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)


def stream_ns(seconds: float) -> int:
    """The stamp (ns) of a time in seconds since the stream's start, rounded to milliseconds."""
    return START_NS + round(seconds * 1000) * (SECOND_NS // 1000)


def sight(episode: Episode) -> EvidenceInterval:
    """The look at a thing as evidence."""
    return EvidenceInterval(start_ns=episode.interval.start_ns, end_ns=episode.interval.end_ns)


def heard_at(sound: SoundTruth) -> EvidenceInterval:
    """A sound as evidence."""
    return EvidenceInterval(start_ns=stream_ns(sound.start_s), end_ns=stream_ns(sound.end_s), modality="audio")


def glance(seconds: list[int]) -> EvidenceInterval:
    """The time from the first to the last of the given seconds as evidence."""
    return EvidenceInterval(start_ns=stream_ns(seconds[0]), end_ns=stream_ns(seconds[-1]))


def point(x: float, y: float, z: float) -> tuple[float, float, float]:
    """A position in metres, rounded to millimetres."""
    return round(x, 3), round(y, 3), round(z, 3)


def title(name: str) -> str:
    """A sound as questions call it."""
    return SOUNDS[name].title


def unseen_things(ix: Index, every: list[Thing]) -> Iterator[tuple[Thing, str]]:
    """Yield things that were in no picture, near misses first: (thing, what was seen instead)."""
    seen = sorted(ix.episodes)
    rest = []
    for thing in every:
        if thing in ix.glimpses:
            continue
        shape = next((s for s in seen if s.shape == thing.shape), None)
        colour = next((s for s in seen if s.colour == thing.colour and s.shape != PERSON), None)
        if shape:
            yield thing, f"same shape, other colour: {shape.name}"
        elif colour:
            yield thing, f"same colour, other shape: {colour.name}"
        else:
            rest.append((thing, "nothing like it"))
    yield from rest


def unheard_sounds(ix: Index) -> Iterator[tuple[str, str]]:
    """Yield sounds that were not heard, not even faintly: (name, what was heard instead)."""
    heard = sorted({s.name for s in ix.sounds if s.clear})
    for name in SOUNDS:
        if not any(s.name == name and (s.clear or s.faint) for s in ix.sounds):
            alike = [h for h in heard if (h in SPOKEN) == (name in SPOKEN)]
            yield name, f"another sound: {alike[0]}" if alike else "no such sound"


def certain_last(ix: Index, episode: Episode) -> bool:
    """Whether nothing of the thing was seen long after this look, so that "last" is clear."""
    return ix.glimpses[episode.thing][-1] <= episode.last + SETTLE_S


def certain_first(ix: Index, episode: Episode) -> bool:
    """Whether nothing of the thing was seen long before this look, so that "first" is clear."""
    return ix.glimpses[episode.thing][0] >= episode.first - SETTLE_S
