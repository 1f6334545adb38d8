"""Random generators of the world: one independent, named generator per seed and purpose."""

from __future__ import annotations

import zlib

import numpy as np

# Seeds from here on are held out from training. Their worlds, phrasings and colour-shape pairs are for scoring.
HELD_OUT_SEED_START = 100_000


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator that depends only on the seed and the name of the purpose.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative")
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def is_held_out(seed: int) -> bool:
    """Whether a seed is held out from training."""
    return seed >= HELD_OUT_SEED_START
