"""Spoken digits and short words from espeak-ng's PyPI wheel, so that a seed sounds the same everywhere."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import soxr

from salmonn_node.lab.world.sounds import SPOKEN
from salmonn_node.stream.observations import SAMPLE_RATE_HZ

VOICES = ("en-us", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+m3", "en-us+m7", "en-gb-scotland", "en-gb-x-rp")
WORDS_PER_MINUTE = 150

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h: samples go to the callback, nothing is played
_UTF8 = 1
_RATE = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Espeak:
    """Wrapper of espeak-ng. The library has one global state, so there is only one instance."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError("spoken words need espeakng-loader: pip install 'salmonn_node[world]'") from error
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        if self.rate_hz <= 0:
            raise RuntimeError("espeak-ng does not start: its data files are missing")
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._take)  # keep a reference, or it is collected while C still calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: object, count: int, events: object) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())  # type: ignore[arg-type]
        return 0

    def say(self, text: str, voice: str) -> np.ndarray:
        """Speak a text: (n,) int16 at `rate_hz`."""
        self._chunks = []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
        raw = text.encode() + b"\0"
        self._library.espeak_Synth(raw, len(raw), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)


@functools.cache
def _engine() -> _Espeak:
    return _Espeak()


@functools.cache
def _bank() -> dict[tuple[str, str], np.ndarray]:
    """Speak every word in every voice once, in a fixed order.

    espeak-ng keeps a state from word to word, and no restart clears it. So the sound of a word depends on everything
    said before it. Saying everything at once, at the start of a process, gives the same sounds each time.
    """
    engine = _engine()
    bank = {}
    for voice in VOICES:
        for text in SPOKEN.values():
            wave = soxr.resample(engine.say(text, voice) / 32768.0, engine.rate_hz, SAMPLE_RATE_HZ)
            loud = np.flatnonzero(np.abs(wave) > 0.01)
            if not len(loud):
                raise RuntimeError(f"espeak-ng said nothing for {text!r} in voice {voice!r}")
            bank[text, voice] = wave[loud[0] : loud[-1] + 1]
    return bank


def say(text: str, voice: str, speed: float = 1.0) -> np.ndarray:
    """Return a word of SPOKEN as (n,) float64 in -1..1 at 16 kHz, without silence at both ends.

    Args:
        text: the word.
        voice: one of VOICES.
        speed: factor by which it is faster and higher.

    Raises:
        ImportError: the `world` extra is not installed.
        ValueError: the word or the voice does not exist.
    """
    if text not in SPOKEN.values() or voice not in VOICES:
        raise ValueError(f"there is no {text!r} in voice {voice!r}")
    wave = _bank()[text, voice]
    return wave.copy() if speed == 1.0 else soxr.resample(wave, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ)


def say_anything(text: str, voice: str) -> np.ndarray:
    """Speak any words in any voice of espeak-ng: (n,) float64 in -1..1 at 16 kHz. Not for the world.

    Do not use it in a process that also renders the world, because the sound of a word depends on earlier words.

    Raises:
        ImportError: the `world` extra is not installed.
        RuntimeError: espeak-ng does not have the voice.
    """
    engine = _engine()
    return soxr.resample(engine.say(text, voice) / 32768.0, engine.rate_hz, SAMPLE_RATE_HZ)
