"""Truth: what was visible and audible, second by second. Questions and the oracle use nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.trajectory import Pose2D
from salmonn_node.stream.observations import SECOND_NS, Interval

START_NS = 1_767_254_400 * SECOND_NS  # 2026-01-01 08:00 UTC: every stream starts then

# Questions are asked this long before a whole second. So no frame has exactly the time of asking, and the last
# questions of a bag lie within it.
ASK_EARLY_S = 0.1

CLEAR_SHARE = 0.02  # share of the picture (13 x 14 px of 128 x 72) from which there are questions about a thing
GLIMPSE_SHARE = 0.0005  # below this, a thing counts as not seen; between the two there are no questions


@dataclass(frozen=True)
class Seen:
    """A thing in a frame: its share of the pixels, its box (shares of width and height), and its position."""

    thing: Thing
    room: str
    spot: str
    share: float
    box: tuple[float, float, float, float]
    position: tuple[float, float, float]
    clear: bool


@dataclass(frozen=True)
class Looked:
    """A stand or door in plain view in a frame, and its state: a thing or None; open (True) or shut (False)."""

    spot: str
    room: str
    kind: str
    state: Thing | bool | None


@dataclass(frozen=True)
class SoundTruth:
    """A sound as received by the microphone. Times are seconds of the stream."""

    name: str
    room: str
    repeats: int
    start_s: float
    end_s: float
    snr_db: float
    clear: bool
    faint: bool


@dataclass(frozen=True)
class WorldMoment:
    """A second: the frame at its start, and the robot's pose.

    Attributes:
        second: index in the stream. The stamp of the frame is `stamp_ns`.
        pose: true pose of the robot's base in the map.
        room: room of the robot.
        lit: whether the light was on in the room.
        seen: all things in the picture, clear or only glimpsed.
        looked: stands and doors in plain view.
    """

    second: int
    pose: Pose2D
    room: str
    lit: bool
    seen: tuple[Seen, ...] = ()
    looked: tuple[Looked, ...] = ()

    @property
    def stamp_ns(self) -> int:
        """Header stamp of the frame."""
        return START_NS + self.second * SECOND_NS


@dataclass(frozen=True)
class Truth:
    """Everything that was visible and audible in a stream. `moments[k].second == k`."""

    moments: tuple[WorldMoment, ...]
    sounds: tuple[SoundTruth, ...]
    rooms: tuple[str, ...] = ()
    map_id: str = ""

    @property
    def seconds(self) -> int:
        """Length of the stream."""
        return len(self.moments)

    def piece(self, start: int, stop: int) -> Truth:
        """Return seconds `start` to `stop` as a separate stream, without sounds cut by the border."""
        moments = tuple(replace(m, second=m.second - start) for m in self.moments[start:stop])
        sounds = tuple(
            replace(s, start_s=s.start_s - start, end_s=s.end_s - start)
            for s in self.sounds
            if s.start_s >= start and s.end_s <= stop
        )
        return Truth(moments, sounds, self.rooms, self.map_id)


def compose(pieces: Iterable[Truth]) -> Truth:
    """Join pieces into one stream. This makes hours of stream without rendering again.

    Cut pieces where no sound crosses the border (`quiet_cuts`). Otherwise the sound is audible, but not in the truth.
    """
    moments: list[WorldMoment] = []
    sounds: list[SoundTruth] = []
    rooms: dict[str, None] = {}
    map_ids: dict[str, None] = {}
    for piece in pieces:
        offset = len(moments)
        moments += [replace(m, second=m.second + offset) for m in piece.moments]
        sounds += [replace(s, start_s=s.start_s + offset, end_s=s.end_s + offset) for s in piece.sounds]
        rooms |= dict.fromkeys(piece.rooms)
        map_ids |= dict.fromkeys([piece.map_id])
    return Truth(tuple(moments), tuple(sounds), tuple(rooms), "+".join(map_ids))


def quiet_cuts(truth: Truth, every_s: int) -> list[int]:
    """Seconds at which you may cut a stream: no sound crosses them. At least `every_s` apart, ends included."""
    cuts = [0]
    for k in range(1, truth.seconds):
        if k - cuts[-1] >= every_s and not any(s.start_s < k < s.end_s for s in truth.sounds):
            cuts.append(k)
    if truth.seconds - cuts[-1] < every_s and len(cuts) > 1:
        cuts.pop()
    return [*cuts, truth.seconds]


@dataclass(frozen=True)
class Episode:
    """A thing in plain view without a break, at one spot. `first` and `last` are seconds, both included."""

    thing: Thing
    spot: str
    room: str
    first: int
    last: int
    share: float
    position: tuple[float, float, float]
    observer: Pose2D

    @property
    def interval(self) -> Interval:
        """From the first frame that shows it to the last."""
        return Interval(START_NS + self.first * SECOND_NS, START_NS + self.last * SECOND_NS)


def ask_stamp_ns(now: int) -> int:
    """Stamp of a question asked just before second `now`."""
    return START_NS + now * SECOND_NS - round(ASK_EARLY_S * SECOND_NS)


@dataclass
class Index:
    """Index of the truth up to a second, for asking.

    Attributes:
        episodes: by thing, in time order, with at least two frames each.
        glimpses: by thing, the seconds in which it was in the picture, however small.
        looks: by spot, (second, state).
        stays: (room, first second, last second) of each stay of the robot in a room.
        sounds: sounds that ended before the question.
    """

    now: int
    episodes: dict[Thing, list[Episode]] = field(default_factory=dict)
    glimpses: dict[Thing, list[int]] = field(default_factory=dict)
    looks: dict[str, list[tuple[int, Thing | bool | None]]] = field(default_factory=dict)
    stays: list[tuple[str, int, int]] = field(default_factory=list)
    sounds: list[SoundTruth] = field(default_factory=list)

    def heard(self, name: str) -> list[SoundTruth]:
        """Clear sounds of a name, in order."""
        return [s for s in self.sounds if s.name == name and s.clear]

    def unsure(self, name: str) -> bool:
        """Whether a sound of that name was faint: neither clear nor surely inaudible."""
        return any(s.name == name and s.faint for s in self.sounds)


def index(truth: Truth, now: int) -> Index:
    """Index what is known just before second `now`: earlier frames, and sounds that have ended."""
    out = Index(now, sounds=[s for s in truth.sounds if s.end_s <= now - ASK_EARLY_S])
    running: dict[tuple[Thing, str], list[tuple[WorldMoment, Seen]]] = {}

    def finish(key: tuple[Thing, str]) -> None:
        frames = running.pop(key)
        if len(frames) >= 2:
            middle, view = frames[len(frames) // 2]
            share = max(s.share for _, s in frames)
            out.episodes.setdefault(key[0], []).append(
                Episode(key[0], key[1], view.room, frames[0][0].second, frames[-1][0].second, share, view.position,
                        middle.pose)
            )  # fmt: skip

    for moment in truth.moments[:now]:
        clear = {(s.thing, s.spot) for s in moment.seen if s.clear}
        for key in [k for k in running if k not in clear]:
            finish(key)
        for seen in moment.seen:
            out.glimpses.setdefault(seen.thing, []).append(moment.second)
            if seen.clear:
                running.setdefault((seen.thing, seen.spot), []).append((moment, seen))
        for looked in moment.looked:
            out.looks.setdefault(looked.spot, []).append((moment.second, looked.state))
        if out.stays and out.stays[-1][0] == moment.room:
            out.stays[-1] = (moment.room, out.stays[-1][1], moment.second)
        else:
            out.stays.append((moment.room, moment.second, moment.second))
    for key in list(running):
        finish(key)
    for episodes in out.episodes.values():
        episodes.sort(key=lambda e: (e.first, e.spot))
    return out


def frames_between(truth: Truth, start_s: float, end_s: float) -> Sequence[WorldMoment]:
    """Return the moments whose frame lies in a span, or the one nearest to its start."""
    first = max(0, int(start_s + 0.5))
    last = max(first, int(end_s))
    return truth.moments[first : last + 1]
