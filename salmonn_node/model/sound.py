"""Mel front end: 16 kHz samples to log-mel windows, with transformers' Whisper feature extractor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from salmonn_node.model.config import AudioConfig
from salmonn_node.stream.observations import SAMPLE_RATE_HZ

# Bounds of log10 mel power that "fixed" scaling maps to -1..1: silence at the floor, full scale near the top.
FIXED_FLOOR, FIXED_TOP = -6.0, 2.0


class MelFrontEnd:
    """Map the samples of one window, padded with silence, to log-mel (mel_bins, 100 * window_s) float32."""

    def __init__(self, audio: AudioConfig) -> None:
        self.config = audio
        self._extractor = WhisperFeatureExtractor(
            feature_size=audio.mel_bins, sampling_rate=SAMPLE_RATE_HZ, hop_length=160, chunk_length=audio.window_s
        )
        filters = torch.from_numpy(np.asarray(self._extractor.mel_filters, dtype=np.float32))
        self._filters = filters.T.contiguous()  # (mel_bins, 201)

    def __call__(self, samples: npt.NDArray[np.float32]) -> Tensor:
        """Compute the log-mel of at most one window.

        Raises:
            ValueError: more samples than a window holds, or samples that are not finite.
        """
        if len(samples) > self.config.window_samples:
            raise ValueError(f"samples: {len(samples)} are more than a window of {self.config.window_samples}")
        if not np.isfinite(samples).all():
            raise ValueError("samples: contain NaN or Inf")
        if self.config.mel_scaling == "whisper":
            out = self._extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")
            return torch.from_numpy(np.asarray(out["input_features"][0], dtype=np.float32))
        return self._fixed(samples)

    def _fixed(self, samples: npt.NDArray[np.float32]) -> Tensor:
        """Apply the same filters with a fixed scale, so that a sound looks the same whatever else is in its window."""
        wave = torch.zeros(self.config.window_samples)
        wave[: len(samples)] = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        spectrum = torch.stft(wave, 400, 160, window=torch.hann_window(400), return_complex=True)
        power = self._filters @ spectrum[:, :-1].abs().square()
        level = power.clamp(min=10**FIXED_FLOOR).log10()
        return (level - FIXED_FLOOR) / (FIXED_TOP - FIXED_FLOOR) * 2 - 1
