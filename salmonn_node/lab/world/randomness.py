"""Where the world's chance comes from: one independent, named generator per seed and purpose."""

from __future__ import annotations

import zlib

import numpy as np

# Seeds from here on are never used in training: worlds, phrasings and colour-shape pairs to score on.
HELD_OUT_SEED_START = 100_000


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator that depends on the seed and the purpose's name only.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative")
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def is_held_out(seed: int) -> bool:
    """Whether a seed is kept out of training."""
    return seed >= HELD_OUT_SEED_START
