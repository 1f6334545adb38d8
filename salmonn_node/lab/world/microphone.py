"""Robot microphone: sounds attenuated by distance and walls, plus room noise, and the clarity of each sound."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from salmonn_node.lab.world.randomness import generator
from salmonn_node.lab.world.schedule import Schedule, WorldEvent
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.speech import VOICES, say
from salmonn_node.stream.observations import SAMPLE_RATE_HZ

QUIET_RMS = 0.004  # -48 dB of full scale: a quiet flat with a running robot
LOUDEST_NOISE_DB = 12.0  # extra noise of the noisiest flat
LEVEL_RMS = 0.12  # of every sound at one metre
WALL_DB = 13.0  # attenuation per room crossed
CLEAR_DB = 10.0  # minimum SNR of a sound for questions
FAINT_DB = -3.0  # below this, a sound counts as not heard; between the two there are no questions


@dataclass(frozen=True)
class AudibleSound:
    """A sound as received by the microphone.

    Attributes:
        event: the event of the sound.
        start_s, end_s: start and end, seconds.
        snr_db: power of the sound over its length, relative to the power of the noise, at the robot.
    """

    event: WorldEvent
    start_s: float
    end_s: float
    snr_db: float

    @property
    def clear(self) -> bool:
        """Whether it is loud enough for questions."""
        return self.snr_db >= CLEAR_DB

    @property
    def faint(self) -> bool:
        """Whether it is neither clear nor surely inaudible."""
        return FAINT_DB <= self.snr_db < CLEAR_DB


class Microphone:
    """Sound of a stream, second by second. Each second is independent, so you can cut streams anywhere."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        self._seed = seed
        self._patrol, self._flat = schedule.patrol, schedule.flat
        self.noise_rms = QUIET_RMS * 10 ** (float(generator(seed, "noise").uniform(0, LOUDEST_NOISE_DB)) / 20)
        self.heard = [self._hear(i, e) for i, e in enumerate(schedule.events) if e.kind == "sound"]
        self._gains = {id(h): self.noise_rms * 10 ** (h.snr_db / 20) for h in self.heard}

    def _hear(self, index: int, event: WorldEvent) -> AudibleSound:
        pose = self._patrol.pose_at(event.time_s)
        walls = self._flat.walls_between(self._flat.room_at(pose.x, pose.y), event.room)
        if walls == 0:
            distance_m = float(generator(self._seed, f"distance {index}").uniform(0.8, 2.4))
        else:
            centre = self._flat.room(event.room).centre
            distance_m = max(1.0, float(np.hypot(centre[0] - pose.x, centre[1] - pose.y)))
        level = LEVEL_RMS / distance_m * 10 ** (-WALL_DB * walls / 20)
        return AudibleSound(
            event, event.time_s, event.time_s + event.duration_s, float(20 * np.log10(level / self.noise_rms))
        )

    @functools.lru_cache(maxsize=8)  # noqa: B019 - the microphone lives as long as its stream
    def _wave(self, index: int) -> np.ndarray:
        """Return the sound at the robot, with the power of `snr_db`."""
        heard = self.heard[index]
        event = heard.event
        rng = generator(self._seed, f"sound {index}")
        if event.sound in SPOKEN:
            voice = VOICES[int(rng.integers(len(VOICES)))]
            wave = say(SPOKEN[event.sound], voice, float(rng.uniform(0.92, 1.08)))
            wave = wave[: int(event.duration_s * SAMPLE_RATE_HZ)]
        else:
            make = SOUNDS[event.sound].wave
            assert make is not None
            wave = make(event.duration_s, event.repeats, rng)
        rms = float(np.sqrt(np.mean(np.square(wave))))
        return wave / max(rms, 1e-9) * self._gains[id(heard)]

    def second(self, k: int) -> np.ndarray:
        """(16000,) float32 in -1..1: sound of second `k` of the stream."""
        rng = generator(self._seed, f"noise {k}")
        white = rng.standard_normal(SAMPLE_RATE_HZ)
        # Mostly low rumble, as from motors and ventilation. A two-tap average keeps some hiss.
        hum = 0.6 * np.convolve(white, np.ones(8) / np.sqrt(8), mode="same") + 0.6 * white
        out = hum * (self.noise_rms / float(np.sqrt(np.mean(hum**2))))
        begin = k * SAMPLE_RATE_HZ
        for index, heard in enumerate(self.heard):
            if heard.snr_db > -20 and heard.start_s < k + 1 and heard.end_s > k:
                wave = self._wave(index)
                offset = round(heard.start_s * SAMPLE_RATE_HZ) - begin
                low, high = max(0, offset), min(SAMPLE_RATE_HZ, offset + len(wave))
                if low < high:
                    out[low:high] += wave[low - offset : high - offset]
        return np.clip(out, -1.0, 1.0).astype(np.float32)
