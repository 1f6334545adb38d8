"""Objects of the flat: shapes, colours, sizes, and the colour-shape pairs held out from training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("ball", "cube", "cone", "ring", "star", "cross", "pillar", "diamond")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.06, 0.08),
    "orange": (1.0, 0.45, 0.0),
    "yellow": (0.98, 0.88, 0.05),
    "green": (0.05, 0.60, 0.12),
    "cyan": (0.05, 0.80, 0.85),
    "blue": (0.06, 0.14, 0.85),
    "purple": (0.50, 0.08, 0.62),
    "white": (0.97, 0.97, 0.97),
}
SIZES_M = {"small": 0.42, "large": 0.54}  # largest extent
PERSON = "person"


def pair_held_out(colour: str, shape: str) -> bool:
    """Whether a pair is held out from training: one pair in eight, with each colour and each shape once."""
    return (3 * list(COLOURS).index(colour) + 1) % len(SHAPES) == SHAPES.index(shape)


@dataclass(frozen=True, order=True)
class Thing:
    """A coloured object or a person, identified by colour and shape.

    Attributes:
        colour: one of COLOURS. For a person, the colour of the clothes.
        shape: one of SHAPES, or PERSON.
    """

    colour: str
    shape: str

    @property
    def name(self) -> str:
        """Name in words, such as "red ball" or "person in red"."""
        return f"person in {self.colour}" if self.shape == PERSON else f"{self.colour} {self.shape}"


def pairs(held_out_world: bool) -> list[Thing]:
    """All objects that may occur. Training worlds lack the held-out pairs."""
    every = [Thing(c, s) for c in COLOURS for s in SHAPES]
    return every if held_out_world else [t for t in every if not pair_held_out(t.colour, t.shape)]


Mesh = tuple[np.ndarray, np.ndarray]


def _extruded(outline: np.ndarray, depth: float) -> Mesh:
    """Extrude a flat outline (n, 2) in y and z, star-shaped about its middle, along x."""
    n = len(outline)
    middle = np.zeros((1, 2))
    flat = np.concatenate([outline, middle])
    front = np.column_stack([np.full(n + 1, depth / 2), flat])
    back = np.column_stack([np.full(n + 1, -depth / 2), flat])
    faces = []
    for i in range(n):
        j = (i + 1) % n
        faces += [(n, i, j), (2 * n + 1, n + 1 + j, n + 1 + i)]
        faces += [(i, n + 1 + i, n + 1 + j), (i, n + 1 + j, j)]
    return np.concatenate([front, back]), np.array(faces)


def _cone(sides: int = 20) -> Mesh:
    angle = np.arange(sides) * 2 * np.pi / sides
    base = np.column_stack([np.cos(angle) / 2, np.sin(angle) / 2, np.full(sides, -0.5)])
    vertices = np.concatenate([base, [[0, 0, -0.5], [0, 0, 0.5]]])
    faces = []
    for i in range(sides):
        j = (i + 1) % sides
        faces += [(i, j, sides + 1), (j, i, sides)]
    return vertices, np.array(faces)


def _ring(around: int = 28, tube: int = 10, radius: float = 0.37, thick: float = 0.13) -> Mesh:
    vertices, faces = [], []
    for i in range(around):
        a = 2 * np.pi * i / around
        for k in range(tube):
            b = 2 * np.pi * k / tube
            r = radius + thick * np.cos(b)
            vertices.append((thick * np.sin(b), r * np.cos(a), r * np.sin(a)))
            p, q = i * tube + k, ((i + 1) % around) * tube + k
            r2, s = i * tube + (k + 1) % tube, ((i + 1) % around) * tube + (k + 1) % tube
            faces += [(p, q, r2), (q, s, r2)]
    return np.array(vertices), np.array(faces)


def _star() -> Mesh:
    angle = np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 0.53, 0.22)
    return _extruded(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), 0.22)


def _cross() -> Mesh:
    a, b = 0.5, 0.165
    outline = [
        (b, a),
        (-b, a),
        (-b, b),
        (-a, b),
        (-a, -b),
        (-b, -b),
        (-b, -a),
        (b, -a),
        (b, -b),
        (a, -b),
        (a, b),
        (b, b),
    ]
    return _extruded(np.array(outline), 0.26)


def _diamond() -> Mesh:
    vertices = np.array([(0.36, 0, 0), (0, 0.36, 0), (-0.36, 0, 0), (0, -0.36, 0), (0, 0, 0.56), (0, 0, -0.56)])
    faces = [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4), (1, 0, 5), (2, 1, 5), (3, 2, 5), (0, 3, 5)]
    return vertices, np.array(faces)


def meshes() -> dict[str, Mesh]:
    """Meshes of non-primitive shapes: vertices (n, 3) of unit extent facing +x, faces (m, 3) counter-clockwise."""
    return {"cone": _cone(), "ring": _ring(), "star": _star(), "cross": _cross(), "diamond": _diamond()}
