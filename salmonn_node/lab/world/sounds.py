"""Sounds of the flat: names, durations, and waveforms synthesised from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from salmonn_node.stream.observations import SAMPLE_RATE_HZ

Wave = np.ndarray

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("hello", "thank you", "coffee", "help me", "good night", "stop", "wait")
# sound name -> what is said
SPOKEN: dict[str, str] = {f"digit_{w}": w for w in DIGITS} | {"word_" + w.replace(" ", "_"): w for w in WORDS}


def _time(seconds: float) -> Wave:
    return np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _decay(t: Wave, seconds: float, attack_s: float = 0.004) -> Wave:
    return np.minimum(t / attack_s, 1.0) * np.exp(-t / seconds)


def _noise(n: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> Wave:
    """Make band-limited noise."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    wave = np.fft.irfft(spectrum, n)
    return wave / max(1e-9, float(np.abs(wave).max()))


def _place(pieces: list[tuple[float, Wave]], seconds: float) -> Wave:
    out = np.zeros(int(seconds * SAMPLE_RATE_HZ))
    for at_s, wave in pieces:
        start = int(at_s * SAMPLE_RATE_HZ)
        wave = wave[: len(out) - start]
        out[start : start + len(wave)] += wave
    return out


def _doorbell(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    t = _time(0.9)
    high, low = rng.uniform(640, 700), rng.uniform(510, 545)
    ding = sum(np.sin(2 * np.pi * high * k * t) / k for k in (1, 2, 3)) * _decay(t, 0.25)
    dong = sum(np.sin(2 * np.pi * low * k * t) / k for k in (1, 2, 3)) * _decay(t, 0.35)
    return _place([p for i in range(repeats) for p in ((1.6 * i, ding), (1.6 * i + 0.5, dong))], seconds)


def _alarm(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    t = _time(seconds)
    base = rng.uniform(900, 1100)
    sweep = base + 500 * np.abs(((t * 2.0) % 2) - 1)
    return np.sign(np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE_HZ)) * 0.7


def _bark(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    pieces = []
    for i in range(repeats):
        t = _time(0.28)
        pitch = rng.uniform(330, 420) * (1.25 - 1.2 * t)
        voice = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ)) + 0.8 * _noise(len(t), 400, 2500, rng)
        pieces.append((0.55 * i, voice * np.sin(np.pi * np.minimum(t / 0.28, 1)) ** 0.7))
    return _place(pieces, seconds)


def _knock(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    pieces = []
    for i in range(repeats):
        t = _time(0.16)
        thump = np.sin(2 * np.pi * rng.uniform(150, 210) * t) + 0.7 * _noise(len(t), 200, 1200, rng)
        pieces.append((0.42 * i, thump * _decay(t, 0.03, 0.001)))
    return _place(pieces, seconds)


def _beep(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    t = _time(0.22)
    tone = np.sin(2 * np.pi * rng.uniform(1900, 2200) * t) * np.minimum(1, np.minimum(t, 0.22 - t) / 0.01)
    return _place([(0.6 * i, tone) for i in range(repeats)], seconds)


def _glass(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    pieces: list[tuple[float, Wave]] = [
        (0.0, _noise(int(0.25 * SAMPLE_RATE_HZ), 2500, 7900, rng) * _decay(_time(0.25), 0.06))
    ]
    for _ in range(26):
        t = _time(0.3)
        at = float(rng.exponential(0.16))
        tone = np.sin(2 * np.pi * rng.uniform(2600, 7200) * t) * _decay(t, rng.uniform(0.02, 0.09), 0.001)
        pieces.append((min(at, seconds - 0.31), tone * rng.uniform(0.15, 0.6)))
    return _place(pieces, seconds)


def _water(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    n = int(seconds * SAMPLE_RATE_HZ)
    t = _time(seconds)[:n]
    swell = 0.75 + 0.25 * _noise(n, 0.5, 6, rng)
    edge = np.minimum(1, np.minimum(t, seconds - t) / 0.3)
    return (0.8 * _noise(n, 350, 5200, rng) + 0.3 * _noise(n, 300, 900, rng)) * swell * edge


def _phone(seconds: float, repeats: int, rng: np.random.Generator) -> Wave:
    t = _time(0.8)
    a, b = rng.uniform(430, 450), rng.uniform(470, 490)
    ring = (np.sin(2 * np.pi * a * t) + np.sin(2 * np.pi * b * t)) * (0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 20 * t)))
    return _place([(1.4 * i, ring) for i in range(repeats)], seconds)


@dataclass(frozen=True)
class Sound:
    """A kind of sound.

    Attributes:
        name: "doorbell", or "digit_three" for speech.
        title: name in questions, such as "the doorbell".
        wave: (seconds, repeats, generator) -> samples in -1..1 at 16 kHz. None for speech, which espeak-ng synthesises.
        max_repeats: maximum number of rings, knocks or beeps in a row.
        first_s, next_s: duration of the first one, and of each further one.
        lasts: whether the duration varies (4 to 12 s), so that questions can ask "for how long".
    """

    name: str
    title: str
    wave: Callable[[float, int, np.random.Generator], Wave] | None
    max_repeats: int = 1
    first_s: float = 1.0
    next_s: float = 0.0
    lasts: bool = False

    def seconds(self, repeats: int, rng: np.random.Generator) -> float:
        """Duration of one occurrence."""
        return float(rng.integers(4, 13)) if self.lasts else self.first_s + (repeats - 1) * self.next_s


SOUNDS: dict[str, Sound] = {
    s.name: s
    for s in (
        Sound("doorbell", "the doorbell", _doorbell, 2, 1.5, 1.6),
        Sound("alarm", "the alarm", _alarm, lasts=True),
        Sound("bark", "a dog barking", _bark, 4, 0.5, 0.55),
        Sound("knock", "knocking", _knock, 5, 0.4, 0.42),
        Sound("beep", "beeping", _beep, 5, 0.4, 0.6),
        Sound("glass", "glass breaking", _glass, 1, 1.0),
        Sound("water", "water running", _water, lasts=True),
        Sound("phone", "the phone", _phone, 3, 1.0, 1.4),
        *(Sound(name, f"the word “{said}”", None, 1, 1.2) for name, said in SPOKEN.items()),
    )
}
