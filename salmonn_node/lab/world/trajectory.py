"""Patrol of the robot: its visits to spots, its true pose at any time, and its drifting odometry."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from salmonn_node.lab.world.layout import Flat, Spot
from salmonn_node.lab.world.randomness import generator

SPEED_M_S = 0.8
TURN_RAD_S = np.deg2rad(100.0)
ODOMETRY_HZ = 10
# Relative odometry error of a move and of a turn (one sigma), typical for wheels on flat floors.
DRIFT_PER_M = 0.02
DRIFT_PER_RAD = 0.02


@dataclass(frozen=True)
class Pose2D:
    """x, y (m) and yaw (rad) in the map frame, REP-103."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Visit:
    """A visit: the robot stands still and looks at a spot from `start_s` to `end_s`."""

    spot: Spot
    start_s: float
    end_s: float


class Patrol:
    """A seeded patrol through the flat. Its visits cover at least `duration_s` seconds.

    Args:
        flat: the flat.
        seed: seed of the patrol.
        duration_s: length, seconds.
        dwell_s: shortest and longest look at a spot, seconds.
    """

    def __init__(self, flat: Flat, seed: int, duration_s: float, dwell_s: tuple[float, float]) -> None:
        self.flat = flat
        self.duration_s = duration_s
        self.visits: list[Visit] = []
        self._times: list[float] = []  # starts of the segments
        self._segments: list[tuple[float, Pose2D, Pose2D]] = []  # end, from, to
        rng = generator(seed, "patrol")
        room = flat.rooms[int(rng.integers(len(flat.rooms)))]
        self._now = 0.0
        self._pose = Pose2D(*room.centre, float(rng.uniform(-np.pi, np.pi)))
        last_seen = {r.name: -float(i + 1) for i, r in enumerate(flat.rooms)}
        while self._now < duration_s:
            last_seen[room.name] = self._now
            for index in rng.permutation(len(room.spots)):
                spot = room.spots[index]
                self._drive(spot.view)
                self._turn(spot.heading_rad)
                start = self._now
                self._stay(float(rng.uniform(*dwell_s)))
                self.visits.append(Visit(spot, start, self._now))
                if self._now >= duration_s:
                    return
            # Go towards the room not seen for the longest time, so that every room is seen again within one round.
            target = min(last_seen, key=lambda name: last_seen[name])
            step = min(
                sorted(set(room.doorways.values())),
                key=lambda name: (flat.walls_between(name, target), last_seen[name]),
            )
            self._drive(room.centre)
            self._drive(flat.doorway(room.name, step))
            room = flat.room(step)

    def _add(self, seconds: float, pose: Pose2D) -> None:
        if seconds > 0:
            self._times.append(self._now)
            self._segments.append((self._now + seconds, self._pose, pose))
            self._now += seconds
        self._pose = pose

    def _turn(self, yaw: float) -> None:
        difference = (yaw - self._pose.yaw + np.pi) % (2 * np.pi) - np.pi
        pose = Pose2D(self._pose.x, self._pose.y, self._pose.yaw + difference)
        self._add(abs(difference) / TURN_RAD_S, pose)

    def _drive(self, to: tuple[float, float]) -> None:
        dx, dy = to[0] - self._pose.x, to[1] - self._pose.y
        distance = float(np.hypot(dx, dy))
        if distance > 1e-6:
            self._turn(float(np.arctan2(dy, dx)))
            self._add(distance / SPEED_M_S, Pose2D(to[0], to[1], self._pose.yaw))

    def _stay(self, seconds: float) -> None:
        self._add(seconds, self._pose)

    def pose_at(self, time_s: float) -> Pose2D:
        """True pose of the robot's base. After the end, the last pose."""
        index = max(0, bisect_right(self._times, time_s) - 1)
        end, a, b = self._segments[index]
        start = self._times[index]
        share = min(1.0, max(0.0, (time_s - start) / (end - start)))
        return Pose2D(a.x + share * (b.x - a.x), a.y + share * (b.y - a.y), a.yaw + share * (b.yaw - a.yaw))


@dataclass(frozen=True)
class OdometrySample:
    """Wheel odometry: pose and its covariance in the odom frame, velocities in the base frame."""

    time_s: float
    pose: Pose2D
    variance_xy_m2: float
    variance_yaw_rad2: float
    speed_m_s: float
    turn_rad_s: float


def odometry(patrol: Patrol, seed: int) -> list[OdometrySample]:
    """Dead reckoning at ODOMETRY_HZ. Its error grows with distance and turns, and its covariance reflects that.

    The wheels have a scale error of distance and of turns, fixed for the stream, and noise at each step. The covariance
    is the first-order propagation of both (state: x, y, yaw, and the two scale errors).
    """
    rng = generator(seed, "odometry")
    step = 1.0 / ODOMETRY_HZ
    last = patrol.pose_at(0.0)
    scale_way, scale_turn = rng.normal(1.0, DRIFT_PER_M / 2), rng.normal(1.0, DRIFT_PER_RAD / 2)
    x = y = yaw = 0.0
    covariance = np.diag([1e-6, 1e-6, 1e-6, (DRIFT_PER_M / 2) ** 2, (DRIFT_PER_RAD / 2) ** 2])
    samples = [OdometrySample(0.0, Pose2D(0.0, 0.0, 0.0), 1e-6, 1e-6, 0.0, 0.0)]
    for k in range(1, int(patrol.duration_s * ODOMETRY_HZ) + 1):
        now = patrol.pose_at(k * step)
        way, turn = float(np.hypot(now.x - last.x, now.y - last.y)), now.yaw - last.yaw
        if way or turn:
            noise = rng.normal(size=2)
            seen_way = way * (scale_way + DRIFT_PER_M * noise[0])
            yaw += float(turn * (scale_turn + DRIFT_PER_RAD * noise[1]))
            cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
            x, y = x + float(seen_way) * cos, y + float(seen_way) * sin
            move = np.eye(5)
            move[2, 4] = turn
            move[0, 2:] = -way * sin, way * cos, -way * sin * turn
            move[1, 2:] = way * cos, way * sin, way * cos * turn
            spread = np.array([[cos, -way * sin], [sin, way * cos], [0, 1], [0, 0], [0, 0]])
            spread = spread * (DRIFT_PER_M * way, DRIFT_PER_RAD * turn)
            covariance = move @ covariance @ move.T + spread @ spread.T
        variance_xy = float(max(covariance[0, 0], covariance[1, 1]))
        pose = Pose2D(x, y, yaw)
        samples.append(
            OdometrySample(k * step, pose, variance_xy, float(covariance[2, 2]), way / step, float(turn / step))
        )
        last = now
    return samples
