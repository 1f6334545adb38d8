"""Stream of the world: `stream()` yields picture, sound and truth, second by second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salmonn_node.lab.world.camera import Camera, PictureRegion
from salmonn_node.lab.world.layout import STAND_HEIGHT_M, make_flat
from salmonn_node.lab.world.microphone import Microphone
from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.schedule import DENSE, SPARSE, Density, Schedule, WorldEvent
from salmonn_node.lab.world.trajectory import Patrol
from salmonn_node.lab.world.truth import CLEAR_SHARE, GLIMPSE_SHARE, Looked, Seen, SoundTruth, Truth, WorldMoment

DOOR_SHARE = 0.06  # minimum share of leaf and daylight to see whether a door is open
STAND_SHARE = 0.015  # minimum share to see whether something is on a stand


class World:
    """Flat, patrol, events and microphone of one seed. Cheap, because it renders nothing.

    Args:
        seed: determines everything, see `randomness.HELD_OUT_SEED_START`.
        seconds: length of the stream.
        dense: use more distinct events than a small memory can hold.

    Raises:
        ValueError: the seed is negative, or the length is below one second.
    """

    def __init__(self, seed: int, seconds: int, dense: bool = False, density: Density | None = None) -> None:
        if seconds < 1:
            raise ValueError(f"seconds={seconds} must be at least 1")
        self.seed, self.seconds, self.dense = seed, seconds, dense
        density = density or (DENSE if dense else SPARSE)
        self.flat = make_flat(seed)
        self.patrol = Patrol(self.flat, seed, float(seconds), density.dwell_s)
        self.schedule = Schedule(self.patrol, seed, density)
        self.microphone = Microphone(self.schedule, seed)
        self._spots = {s.name: s for s in self.flat.spots}

    @property
    def map_id(self) -> str:
        """Id of the flat's map."""
        return f"flat-{self.seed}"

    @property
    def events(self) -> list[WorldEvent]:
        """All events in order, seen or not."""
        return self.schedule.events

    @property
    def sounds(self) -> tuple[SoundTruth, ...]:
        """All sounds as received by the microphone."""
        return tuple(
            SoundTruth(h.event.sound, h.event.room, h.event.repeats, h.start_s, h.end_s, h.snr_db, h.clear, h.faint)
            for h in self.microphone.heard
        )

    def camera(self, width: int, height: int, supersample: int = 1) -> Camera:
        """Make a camera that renders this world. Needs OpenGL."""
        return Camera(self.schedule, self.seed, width, height, supersample)

    def moment(self, second: int, regions: dict[str, PictureRegion]) -> WorldMoment:
        """Return what the frame at the start of a second shows, given the camera's regions."""
        time_s = float(second)
        pose = self.patrol.pose_at(time_s)
        here = self.flat.room_at(pose.x, pose.y)
        places: dict[str, tuple[str, bool]] = {}  # thing's name -> spot, is a person
        things: dict[str, Thing] = {}
        for spot in self.flat.spots:
            if spot.kind == "stand":
                for history, person in ((self.schedule.on_stand, False), (self.schedule.people_at, True)):
                    thing = history[spot.name].at(time_s)
                    if isinstance(thing, Thing):
                        places[thing.name], things[thing.name] = (spot.name, person), thing
        seen = []
        for name, region in regions.items():
            if name.startswith("thing:") and region.share >= GLIMPSE_SHARE and name[6:] in places:
                spot = self._spots[places[name[6:]][0]]
                is_person = places[name[6:]][1]
                x, y = spot.person if is_person and spot.person else spot.position
                lit = bool(self.schedule.light_on[spot.room].at(time_s))
                clear = lit and region.share >= CLEAR_SHARE and region.whole
                height = 1.0 if is_person else STAND_HEIGHT_M + 0.2
                position = (round(x, 3), round(y, 3), height)
                seen.append(Seen(things[name[6:]], spot.room, spot.name, region.share, region.box, position, clear))
        looked = []
        for spot in self.flat.spots:
            if not self.schedule.light_on[spot.room].at(time_s) or spot.room != here:
                continue
            if spot.kind == "door":
                parts = [regions.get(f"leaf:{spot.name}"), regions.get(f"daylight:{spot.name}")]
                if sum(p.share for p in parts if p) >= DOOR_SHARE and all(p.whole for p in parts if p):
                    looked.append(
                        Looked(spot.name, spot.room, "door", bool(self.schedule.door_open[spot.name].at(time_s)))
                    )
            else:
                stand = regions.get(f"stand:{spot.name}")
                if stand and stand.share >= STAND_SHARE and stand.whole:
                    state = self.schedule.on_stand[spot.name].at(time_s)
                    looked.append(Looked(spot.name, spot.room, "stand", state if isinstance(state, Thing) else None))
        lit_here = bool(self.schedule.light_on[here].at(time_s))
        return WorldMoment(second, pose, here, lit_here, tuple(sorted(seen, key=lambda s: s.thing)), tuple(looked))

    def truth(self, moments: list[WorldMoment]) -> Truth:
        """Combine the moments with the sounds and rooms of this world."""
        return Truth(tuple(moments), self.sounds, tuple(r.name for r in self.flat.rooms), self.map_id)


@dataclass(frozen=True)
class Second:
    """A second of a stream.

    Attributes:
        stamp_ns: stamp of the first frame and of the first sample.
        frames: (F, H, W, 3) uint8 RGB, evenly spaced from `stamp_ns` on.
        audio: (16000,) float32 in -1..1. Silence if the stream has no sound.
        moment: what the first frame shows and where the robot is.
    """

    stamp_ns: int
    frames: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.float32]
    moment: WorldMoment


def play(world: World, camera: Camera, fps: int = 1, audio: bool = True) -> Iterator[Second]:
    """Yield a world second by second through an open camera."""
    for k in range(world.seconds):
        regions = camera.regions(float(k))
        frames = np.stack([camera.picture(k + i / fps) for i in range(fps)])
        sound = world.microphone.second(k) if audio else np.zeros(16_000, np.float32)
        moment = world.moment(k, regions)
        yield Second(moment.stamp_ns, frames, sound, moment)


def stream(
    seed: int,
    minutes: float,
    dense: bool = False,
    *,
    width: int = 128,
    height: int = 72,
    fps: int = 1,
    audio: bool = True,
    supersample: int = 2,
) -> Iterator[Second]:
    """Yield the stream of a seed, second by second. On one machine, a seed always gives the same stream.

    Args:
        seed: below 100 000 for training; 100 000 and above for scoring.
        minutes: length in minutes.
        dense: use many events instead of few.
        width: width of the frames, pixels.
        height: height of the frames. 9/16 of the width matches CameraInfo.
        fps: frames per second.
        audio: whether to synthesise sound.
        supersample: 2 renders at twice the size and averages, which looks like a downscaled 640x360 picture.
    """
    world = World(seed, round(minutes * 60), dense)
    with world.camera(width, height, supersample) as camera:
        yield from play(world, camera, fps, audio)
