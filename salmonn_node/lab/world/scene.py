"""MuJoCo scene (MJCF) of a flat: walls, floors, furniture, stands, doors, people and objects of one stream."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import numpy as np

from salmonn_node.lab.world.layout import (
    DOORWAY_WIDTH_M,
    ROOM_SIZE_M,
    ROOMS,
    SIDES,
    STAND_HEIGHT_M,
    WALL_HEIGHT_M,
    WALL_THICKNESS_M,
    Flat,
    Room,
    Spot,
)
from salmonn_node.lab.world.objects import COLOURS, SIZES_M, Thing, meshes
from salmonn_node.lab.world.randomness import generator

CAMERA_HEIGHT_M = 1.0
CAMERA_PITCH_RAD = np.deg2rad(5.0)  # downwards
FIELD_OF_VIEW_X_DEG = 66.0
ASPECT = 16 / 9
FIELD_OF_VIEW_Y_DEG = float(np.rad2deg(2 * np.arctan(np.tan(np.deg2rad(FIELD_OF_VIEW_X_DEG) / 2) / ASPECT)))
HIDDEN = (0.0, 0.0, -20.0)

_DOOR_PANEL, _DAYLIGHT = "0.36 0.24 0.16 1", "0.93 0.97 1 1"
_SKIN, _TROUSERS = "0.80 0.62 0.50 1", "0.20 0.20 0.24 1"


def _numbers(*values: float) -> str:
    return " ".join(f"{v:.5g}" for v in values)


def _box(name: str, centre: tuple[float, ...], half: tuple[float, ...], look: str, yaw: float = 0.0) -> str:
    turn = f' euler="0 0 {yaw:.5g}"' if yaw else ""
    label = f"name={quoteattr(name)} " if name else ""
    return f'<geom {label}type="box" pos="{_numbers(*centre)}" size="{_numbers(*half)}" {look}{turn}/>'


def _rgba(*colour: float) -> str:
    return f'rgba="{_numbers(*colour)} 1"'


def _wall(room: Room, side: str, has_doorway: bool, has_door: bool) -> list[str]:
    """Make a room's half of a wall in its own colour, with a gap for a doorway or an outer door."""
    dx, dy = SIDES[side]
    half = ROOM_SIZE_M / 2
    offset = half - WALL_THICKNESS_M / 4
    look = f'material="wall {room.name}"'
    cx, cy = room.centre[0] + dx * offset, room.centre[1] + dy * offset
    thin, tall = WALL_THICKNESS_M / 4, WALL_HEIGHT_M / 2

    def piece(along: float, half_length: float, low: float, high: float) -> str:
        centre = (cx - dy * along, cy + dx * along, (low + high) / 2)
        size = (thin if dx else half_length, half_length if dx else thin, (high - low) / 2)
        return _box("", centre, size, look)

    if not has_doorway and not has_door:
        return [piece(0.0, half, 0.0, 2 * tall)]
    gap, top = (DOORWAY_WIDTH_M, 2.1) if has_doorway else (0.9, 2.0)
    rest = (half - gap / 2) / 2
    return [
        piece(gap / 2 + rest, rest, 0.0, 2 * tall),
        piece(-gap / 2 - rest, rest, 0.0, 2 * tall),
        piece(0.0, gap / 2, top, 2 * tall),
    ]


# Furniture by room, against a wall: centre (along the wall, away from it, height), half sizes, colour
_FURNITURE: dict[
    str, list[tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]]
] = {
    "kitchen": [
        ((0.0, 0.28, 0.44), (0.75, 0.28, 0.44), (0.66, 0.66, 0.64)),
        ((0.0, 0.28, 0.90), (0.77, 0.30, 0.02), (0.20, 0.20, 0.20)),
        ((0.0, 0.18, 1.75), (0.75, 0.18, 0.28), (0.55, 0.46, 0.34)),
    ],
    "bedroom": [
        ((0.0, 0.70, 0.25), (0.55, 0.70, 0.22), (0.62, 0.62, 0.68)),
        ((0.0, 0.05, 0.55), (0.58, 0.05, 0.50), (0.32, 0.24, 0.18)),
        ((0.0, 0.25, 0.52), (0.40, 0.16, 0.06), (0.78, 0.78, 0.80)),
    ],
    "bathroom": [
        ((0.0, 0.35, 0.28), (0.75, 0.35, 0.28), (0.80, 0.82, 0.82)),
        ((0.0, 0.03, 1.50), (0.45, 0.02, 0.40), (0.66, 0.76, 0.80)),
    ],
    "office": [
        ((0.0, 0.35, 0.72), (0.70, 0.35, 0.03), (0.40, 0.28, 0.18)),
        ((-0.62, 0.35, 0.35), (0.04, 0.32, 0.35), (0.28, 0.20, 0.14)),
        ((0.62, 0.35, 0.35), (0.04, 0.32, 0.35), (0.28, 0.20, 0.14)),
        ((0.0, 0.22, 1.02), (0.38, 0.03, 0.24), (0.07, 0.07, 0.08)),
    ],
    "lounge": [
        ((0.0, 0.45, 0.22), (0.85, 0.42, 0.20), (0.36, 0.34, 0.34)),
        ((0.0, 0.13, 0.55), (0.85, 0.12, 0.30), (0.32, 0.30, 0.30)),
        ((0.0, 0.02, 1.65), (0.40, 0.02, 0.26), (0.52, 0.46, 0.40)),
    ],
    "hall": [
        ((0.0, 0.16, 0.40), (0.60, 0.16, 0.40), (0.44, 0.34, 0.24)),
        ((0.0, 0.03, 1.45), (0.30, 0.02, 0.45), (0.62, 0.68, 0.72)),
    ],
}


def _furniture(room: Room) -> list[str]:
    """Make the room's furniture at a wall without doorway or door, if there is such a wall."""
    door_side = _door_side(room)
    free = [s for s in SIDES if s not in room.doorways and s != door_side]
    if not free:
        return []
    dx, dy = SIDES[free[0]]
    half = ROOM_SIZE_M / 2 - WALL_THICKNESS_M / 2
    out = []
    for (along, away, height), (length, depth, tall), colour in _FURNITURE[room.name]:
        distance = half - away
        centre = (room.centre[0] + dx * distance - dy * along, room.centre[1] + dy * distance + dx * along, height)
        out.append(_box("", centre, (depth if dx else length, length if dx else depth, tall), _rgba(*colour)))
    return out


def _door_side(room: Room) -> str:
    for spot in room.spots:
        if spot.kind == "door":
            x, y = spot.position[0] - room.centre[0], spot.position[1] - room.centre[1]
            return next(s for s, (dx, dy) in SIDES.items() if dx * x + dy * y > 1)
    return ""


def _door(spot: Spot) -> list[str]:
    """Make a door. Frame and daylight are static. The leaf is a body that the renderer turns about its hinge."""
    yaw = spot.heading_rad
    ux, uy = np.cos(yaw), np.sin(yaw)
    x, y = spot.position
    hinge = (x - uy * 0.45 - ux * 0.06, y + ux * 0.45 - uy * 0.06)
    return [
        _box(
            f"daylight:{spot.name}", (x + ux * 0.05, y + uy * 0.05, 1.0), (0.02, 0.45, 1.0), 'material="daylight"', yaw
        ),
        f'<body name={quoteattr("leaf:" + spot.name)} mocap="true" pos="{_numbers(*hinge, 1.0)}" '
        f'quat="{_quaternion(yaw)}">',
        _box(f"leaf:{spot.name}", (0.0, -0.45, 0.0), (0.025, 0.44, 0.99), f'rgba="{_DOOR_PANEL}"'),
        '<geom type="sphere" pos="-0.05 -0.8 0" size="0.04" rgba="0.75 0.7 0.5 1"/>',
        '<geom type="box" pos="-0.026 -0.45 0.45" size="0.004 0.28 0.32" rgba="0.29 0.19 0.12 1"/>',
        '<geom type="box" pos="-0.026 -0.45 -0.45" size="0.004 0.28 0.32" rgba="0.29 0.19 0.12 1"/>',
        "</body>",
    ]


def _quaternion(yaw: float) -> str:
    return _numbers(np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))


def _thing(thing: Thing, size_m: float) -> str:
    s, look = size_m, f'material="{thing.colour}"'
    shapes = {
        "ball": f'type="sphere" size="{s / 2:.5g}"',
        "cube": f'type="box" size="{_numbers(s * 0.4, s * 0.4, s * 0.4)}" euler="0 0 0.5"',
        "pillar": f'type="cylinder" size="{_numbers(s * 0.19, s * 0.56)}"',
    }
    body = shapes.get(thing.shape) or f'type="mesh" mesh="{thing.shape} {size_m:.2f}"'
    name = quoteattr(f"thing:{thing.name}")
    return f'<body name={name} mocap="true" pos="{_numbers(*HIDDEN)}"><geom name={name} {body} {look}/></body>'


def _person(thing: Thing) -> str:
    name = quoteattr(f"thing:{thing.name}")
    look = f'material="{thing.colour}"'
    return "".join(
        [
            f'<body name={name} mocap="true" pos="{_numbers(*HIDDEN)}">',
            f'<geom name={name} type="capsule" fromto="0 0 0.62 0 0 0.90" size="0.165" {look}/>',
            f'<geom type="capsule" fromto="0 -0.215 0.60 0 -0.18 0.90" size="0.05" {look}/>',
            f'<geom type="capsule" fromto="0 0.215 0.60 0 0.18 0.90" size="0.05" {look}/>',
            f'<geom type="capsule" fromto="0 -0.08 0.1 0 -0.08 0.5" size="0.075" rgba="{_TROUSERS}"/>',
            f'<geom type="capsule" fromto="0 0.08 0.1 0 0.08 0.5" size="0.075" rgba="{_TROUSERS}"/>',
            f'<geom type="sphere" pos="0 0 1.18" size="0.115" rgba="{_SKIN}"/>',
            '<geom type="sphere" pos="-0.025 0 1.215" size="0.115" rgba="0.2 0.13 0.08 1"/>',
            '<geom type="sphere" pos="0.105 0.04 1.19" size="0.018" rgba="0.05 0.05 0.05 1"/>',
            '<geom type="sphere" pos="0.105 -0.04 1.19" size="0.018" rgba="0.05 0.05 0.05 1"/>',
            "</body>",
        ]
    )


def thing_size_m(seed: int, thing: Thing) -> float:
    """Size of a thing, constant throughout a stream."""
    return SIZES_M[("small", "large")[int(generator(seed, f"size {thing.name}").integers(2))]]


def scene_xml(flat: Flat, seed: int, things: list[Thing], people: list[Thing]) -> str:
    """Return the MJCF of one stream. Everything that moves is a mocap body, hidden under the floor until needed."""
    assets = ['<texture name="sky" type="skybox" builtin="flat" rgb1="0.85 0.9 0.95" width="8" height="8"/>']
    for room in flat.rooms:
        wall, floor, floor2 = ROOMS[room.name]
        shade = float(generator(seed, f"paint {room.name}").uniform(0.93, 1.07))
        paint = [min(1.0, c * shade) for c in wall]
        assets.append(f'<material name="wall {room.name}" rgba="{_numbers(*paint)} 1" specular="0" shininess="0"/>')
        assets.append(
            f'<texture name="floor {room.name}" type="2d" builtin="checker" width="64" height="64" '
            f'rgb1="{_numbers(*floor)}" rgb2="{_numbers(*floor2)}"/>'
            f'<material name="floor {room.name}" texture="floor {room.name}" texrepeat="4 4" specular="0"/>'
        )
    for colour, rgb in COLOURS.items():
        assets.append(
            f'<material name="{colour}" rgba="{_numbers(*rgb)} 1" emission="0.22" specular="0.15" shininess="0.3"/>'
        )
    assets.append(f'<material name="daylight" rgba="{_DAYLIGHT}" emission="0.8" specular="0"/>')
    for shape, (vertices, faces) in meshes().items():
        for size_m in SIZES_M.values():
            points = _numbers(*(vertices * size_m).ravel())
            corners = " ".join(str(i) for i in faces.ravel())
            assets.append(f'<mesh name="{shape} {size_m:.2f}" inertia="shell" vertex="{points}" face="{corners}"/>')
    parts = []
    for room in flat.rooms:
        x, y = room.centre
        half = ROOM_SIZE_M / 2
        parts.append(_box("", (x, y, -0.05), (half, half, 0.05), f'material="floor {room.name}"'))
        parts.append(
            f'<light name="light:{room.name}" pos="{_numbers(x, y, 2.35)}" dir="0 0 -1" cutoff="90" exponent="1" '
            'castshadow="false" diffuse="0.62 0.60 0.56" specular="0.1 0.1 0.1" ambient="0.26 0.26 0.26" '
            'attenuation="1 0 0.02"/>'
        )
        door_side = _door_side(room)
        for side in SIDES:
            parts += _wall(room, side, side in room.doorways, side == door_side)
        parts += _furniture(room)
        for spot in room.spots:
            if spot.kind == "door":
                parts += _door(spot)
            else:
                centre = (*spot.position, STAND_HEIGHT_M / 2)
                yaw = spot.heading_rad
                parts.append(
                    _box(f"stand:{spot.name}", centre, (0.2, 0.2, STAND_HEIGHT_M / 2), 'rgba="0.56 0.54 0.5 1"', yaw)
                )
    parts += [_thing(t, thing_size_m(seed, t)) for t in things]
    parts += [_person(p) for p in people]
    return f"""<mujoco model="flat">
  <compiler angle="radian"/>
  <statistic extent="4" center="4 4 1"/>
  <visual>
    <global offwidth="1280" offheight="720"/>
    <quality offsamples="4"/>
    <headlight ambient="0.16 0.16 0.17" diffuse="0.10 0.10 0.11" specular="0 0 0"/>
    <map znear="0.01" zfar="10"/>
  </visual>
  <asset>{"".join(assets)}</asset>
  <worldbody>
    <body name="robot" mocap="true"><camera name="front" pos="0 0 {CAMERA_HEIGHT_M}" fovy="{FIELD_OF_VIEW_Y_DEG:.6g}"
      xyaxes="0 -1 0 {_numbers(np.sin(CAMERA_PITCH_RAD), 0, np.cos(CAMERA_PITCH_RAD))}"/></body>
    {"".join(parts)}
  </worldbody>
</mujoco>"""
