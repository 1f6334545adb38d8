"""The map as HTML: the robot's path, where evidence was observed, and where things stand, with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from salmonn_node.stream.answers import Evidence, Outcome, PoseKind
from salmonn_node.stream.observations import Pose
from salmonn_node.ui.answer_card import text
from salmonn_node.ui.source import Exchange
from salmonn_node.ui.wording import place, span, spread_m

CHI_95 = 5.991  # of two degrees of freedom: the ellipse holds 95 %
SHOWN_ANSWERS = 5
LEAST_M = 2.0
STEPS_M = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True)
class Frame2:
    """The rectangle of the map that is drawn, metres; y points up."""

    left: float
    bottom: float
    width: float
    height: float

    def style(self, x: float, y: float) -> str:
        """CSS that puts a mark at a place."""
        return f"left:{100 * (x - self.left) / self.width:.2f}%;top:{100 * (1 - (y - self.bottom) / self.height):.2f}%"


def drawing(path: Sequence[Pose], asked: Sequence[Exchange] = (), origin_ns: int = 0) -> str:
    """The whole map.

    Args:
        path: where the robot was, in one frame of one map.
        asked: the last answers, newest first.
        origin_ns: times are shown in seconds since this stamp; 0: as time of day.
    """
    if not path:
        return (
            '<p class="quiet">No pose of the robot is remembered. The map needs the topic <code>pose</code> or tf.</p>'
        )
    frame_id, map_id = path[-1].frame_id, path[-1].map_id

    def drawn(pose: Pose | None) -> bool:
        return pose is not None and (pose.frame_id, pose.map_id) == (frame_id, map_id)

    newest = asked[0] if asked else None
    pieces = [
        (age, number, piece)
        for age, item in enumerate(asked[:SHOWN_ANSWERS])
        for number, piece in enumerate(item.answer.evidence, 1)
        if drawn(piece.pose)
    ]
    things = [
        (age, item)
        for age, item in enumerate(asked[:SHOWN_ANSWERS])
        if drawn(item.answer.pose)
        and item.answer.pose_kind == PoseKind.OBJECT
        and item.answer.outcome != Outcome.NOT_OBSERVED
    ]
    poses = [*path, *(piece.pose for _, _, piece in pieces), *(item.answer.pose for _, item in things)]
    area = _area([pose for pose in poses if pose is not None])
    points = " ".join(f"{pose.position[0]:.2f},{-pose.position[1]:.2f}" for pose in path)
    step = next((s for s in STEPS_M if s >= max(area.width, area.height) / 8), STEPS_M[-1])
    svg = (
        f'<svg viewBox="{area.left:.2f} {-(area.bottom + area.height):.2f} {area.width:.2f} {area.height:.2f}" '
        f'role="img" aria-label="Path of the robot in metres">{_grid(area, step)}'
        f'<polyline class="path" points="{points}"/>'
        f"{''.join(_ellipse(piece.pose, 'seen') for _, _, piece in pieces)}"
        f"{''.join(_ellipse(item.answer.pose, 'thing') for _, item in things)}</svg>"
    )
    marks = [_pin(area, path[0], "start", "Start of the path"), _pin(area, path[-1], "robot", _now(path[-1]))]
    marks += [_evidence(area, age, number, piece, origin_ns) for age, number, piece in reversed(pieces)]
    marks += [
        _pin(area, item.answer.pose, "thing old" if age else "thing", f"{item.text} {place(item.answer.pose)}", "★")
        for age, item in reversed(things)
    ]
    ratio = area.width / area.height
    about = f"frame {frame_id}" + (f", map {map_id}" if map_id else ", map not named")
    marked = newest is not None and newest.answer.evidence
    asked_text = f"Marked: the evidence of “{newest.text}”, older answers paler. " if newest and marked else ""
    return (
        f'<p>Metres in {text(about)}; one square is {step:g} m.</p><div class="map" '
        f'style="aspect-ratio:{ratio:.4f};max-width:min(60rem,calc(75vh * {ratio:.4f}))">{svg}{_labels(area, step)}'
        f"{''.join(marks)}</div>"
        f'<p class="legend"><span class="key robot"></span> the robot now <span class="key start"></span> start '
        f'<span class="key mark"></span> the robot at the evidence <span class="key thing"></span> where a thing stands'
        f". An ellipse holds 95 % of what the pose's covariance allows. {text(asked_text)}</p>"
    )


def _now(pose: Pose) -> str:
    return f"Newest pose of the robot: {place(pose)}"


def _area(poses: Sequence[Pose]) -> Frame2:
    """A rectangle around the poses, wider than tall, with a margin."""
    xy = np.array([pose.position[:2] for pose in poses], np.float64)
    reach = np.array([[math.sqrt(CHI_95) * spread_m(pose)] for pose in poses])
    low, high = (xy - reach).min(axis=0), (xy + reach).max(axis=0)
    centre, extent = (low + high) / 2, np.maximum(high - low, LEAST_M) * 1.15
    width, height = float(extent[0]), float(extent[1])
    width, height = max(width, height * 1.2), max(height, width / 2.2)
    return Frame2(float(centre[0]) - width / 2, float(centre[1]) - height / 2, width, height)


def _lines(low: float, length: float, step: float) -> list[float]:
    """Where lines of the grid are, metres."""
    return [number * step for number in range(math.ceil(low / step), math.floor((low + length) / step) + 1)]


def _labels(area: Frame2, step: float) -> str:
    """Metres at every second line, in letters that do not scale with the drawing."""
    across, down = _lines(area.left, area.width, step)[1::2], _lines(area.bottom, area.height, step)[1::2]
    words = [f'<span class="at x" style="{area.style(x, area.bottom).split(";")[0]}">{x:g}</span>' for x in across]
    words += [f'<span class="at y" style="{area.style(area.left, y).split(";")[1]}">{y:g}</span>' for y in down]
    return f'<div aria-hidden="true">{"".join(words)}</div>'


def _grid(area: Frame2, step: float) -> str:
    lines = []
    for x in _lines(area.left, area.width, step):
        lines.append(f'<line x1="{x:g}" x2="{x:g}" y1="{-(area.bottom + area.height):.2f}" y2="{-area.bottom:.2f}"/>')
    for y in _lines(area.bottom, area.height, step):
        lines.append(f'<line y1="{-y:g}" y2="{-y:g}" x1="{area.left:.2f}" x2="{area.left + area.width:.2f}"/>')
    return f'<g class="grid">{"".join(lines)}</g>'


def _ellipse(pose: Pose | None, kind: str) -> str:
    """The 95 % ellipse of the horizontal position; nothing when the covariance is not known."""
    if pose is None or pose.covariance is None:
        return ""
    sizes, axes = np.linalg.eigh(pose.covariance[:2, :2])
    major, minor = (math.sqrt(max(0.0, CHI_95 * float(size))) for size in sizes[::-1])
    if not major:
        return ""
    degrees = -math.degrees(math.atan2(float(axes[1, 1]), float(axes[0, 1])))
    x, y = float(pose.position[0]), -float(pose.position[1])
    return (
        f'<ellipse class="{kind}" cx="{x:.3f}" cy="{y:.3f}" rx="{major:.3f}" ry="{minor:.3f}" '
        f'transform="rotate({degrees:.1f} {x:.3f} {y:.3f})"/>'
    )


def _pin(area: Frame2, pose: Pose | None, kind: str, about: str, sign: str = "") -> str:
    if pose is None:
        return ""
    where = area.style(float(pose.position[0]), float(pose.position[1]))
    return f'<span class="pin {kind}" style="{where}" title="{text(about)}">{sign}</span>'


def _evidence(area: Frame2, age: int, number: int, piece: Evidence, origin_ns: int) -> str:
    about = f"{piece.source}, {span(piece.interval, origin_ns)}, {place(piece.pose)}"
    return _pin(area, piece.pose, "mark old" if age else "mark", about, "" if age else str(number))
