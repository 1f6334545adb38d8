"""Sound for a browser: a WAV file, and its spectrogram as a picture, both made in memory."""

from __future__ import annotations

import base64
import io
import wave

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.stream.observations import SAMPLE_RATE_HZ

WINDOW, HOP = 512, 128  # samples: 32 ms and 8 ms at 16 kHz
RANGE_DB = 70.0
MIN_WIDTH_PX, HEIGHT_PX = 600, 160


def wav(samples: npt.NDArray[np.float32]) -> bytes:
    """A WAV file of mono sound at 16 kHz; `samples` (N,) float, full scale -1..1."""
    whole = (np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(whole.tobytes())
    return out.getvalue()


def spectrogram(sound: bytes) -> bytes:
    """PNG of the spectrogram of a WAV file that `wav` made: time to the right, 0 to 8 kHz upwards."""
    with wave.open(io.BytesIO(sound)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32_768
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * np.hanning(WINDOW)
    level_db = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) + 1e-6)
    top = float(level_db.max())
    grey = np.clip((level_db - top + RANGE_DB) / RANGE_DB * 255, 0, 255).astype(np.uint8).T[::-1]
    size = (max(MIN_WIDTH_PX, grey.shape[1]), HEIGHT_PX)
    coloured = cv2.applyColorMap(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.COLORMAP_VIRIDIS)
    done, data = cv2.imencode(".png", coloured)
    return bytes(data.tobytes()) if done else b""


def data_url(kind: str, data: bytes) -> str:
    """Bytes as a data URL, so that no file and no address is needed."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
