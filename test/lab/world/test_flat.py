"""Layout, patrol, events and sounds of the world: what a seed fixes, and what must never happen. No OpenGL."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.lab.world.layout import SPOT_OFFSET_M, make_flat
from salmonn_node.lab.world.objects import COLOURS, SHAPES, Thing, meshes, pair_held_out, pairs
from salmonn_node.lab.world.randomness import HELD_OUT_SEED_START, generator
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.trajectory import TURN_RAD_S, odometry

SEEDS = st.integers(0, 2 * HELD_OUT_SEED_START)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_every_room_can_be_reached_and_every_spot_lies_in_its_room(seed: int) -> None:
    flat = make_flat(seed)
    for room in flat.rooms:
        assert flat.walls_between(flat.rooms[0].name, room.name) < len(flat.rooms)
        assert len([s for s in room.spots if s.kind == "stand"]) >= 2
        for spot in room.spots:
            assert flat.room_at(*spot.view) == room.name
            if spot.kind == "stand":
                assert flat.room_at(*spot.position) == room.name
                offsets = np.abs(np.subtract(spot.position, room.centre))
                assert np.all(offsets < SPOT_OFFSET_M + 0.1)
    with pytest.raises(KeyError, match="cellar"):
        flat.room("cellar")


def test_flats_of_scoring_never_occur_in_training() -> None:
    training = {make_flat(s).signature for s in range(60)}
    scoring = {make_flat(HELD_OUT_SEED_START + s).signature for s in range(60)}
    assert not training & scoring
    assert len(scoring) > 40


def test_one_pair_in_eight_is_kept_out_of_training() -> None:
    kept_out = {(c, s) for c in COLOURS for s in SHAPES if pair_held_out(c, s)}
    assert len(kept_out) == 8
    assert len({c for c, _ in kept_out}) == len({s for _, s in kept_out}) == 8
    assert len(pairs(True)) == 64
    assert len(pairs(False)) == 56
    for seed in range(5):
        things = World(seed, 300, dense=True).schedule.things
        assert not any(pair_held_out(t.colour, t.shape) for t in things)
    everything = {t for s in range(5) for t in World(HELD_OUT_SEED_START + s, 60, dense=True).schedule.things}
    assert any(pair_held_out(t.colour, t.shape) for t in everything)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_same_seed_same_world_and_no_thing_is_in_two_places(seed: int, dense: bool) -> None:
    world, again = World(seed, 400, dense), World(seed, 400, dense)
    assert world.events == again.events
    assert world.sounds == again.sounds
    assert world.patrol.visits == again.patrol.visits
    for time_s in np.arange(0, 400, 7.0):
        standing = [h.at(time_s) for h in world.schedule.on_stand.values()]
        there = [t for t in standing if t is not None]
        assert len(there) == len(set(there))
        people = [p for p in (h.at(time_s) for h in world.schedule.people_at.values()) if p is not None]
        assert len(people) == len(set(people))
    sounds = sorted(world.sounds, key=lambda s: s.start_s)
    assert all(a.end_s < b.start_s for a, b in zip(sounds, sounds[1:], strict=False))


def test_the_event_log_explains_every_state() -> None:
    world = World(5, 900, dense=True)
    first = {name: h.at(0.0) for name, h in world.schedule.on_stand.items()}
    for event in world.events:
        if event.kind == "placed":
            assert first[event.spot] is None
            first[event.spot] = event.thing
        elif event.kind == "taken":
            assert first[event.spot] == event.thing
            first[event.spot] = None
        elif event.kind == "moved":
            assert first[event.spot] == event.thing
            first[event.spot], first[event.to_spot] = first[event.to_spot], event.thing
        assert str(event)
    assert first == {name: h.at(900.0) for name, h in world.schedule.on_stand.items()}


def test_dense_holds_many_more_facts_than_sparse() -> None:
    sparse, dense = World(3, 1800), World(3, 1800, dense=True)
    assert len(dense.events) > 4 * len(sparse.events)
    assert len(sparse.events) > 20


def test_patrol_moves_as_a_robot_can() -> None:
    patrol = World(8, 300).patrol
    times = np.arange(0, 300, 0.1)
    poses = [patrol.pose_at(t) for t in times]
    steps = [np.hypot(b.x - a.x, b.y - a.y) for a, b in zip(poses, poses[1:], strict=False)]
    turns = [abs(b.yaw - a.yaw) for a, b in zip(poses, poses[1:], strict=False)]
    assert max(steps) <= 0.0801
    assert max(turns) <= TURN_RAD_S * 0.1 + 1e-6
    assert {v.spot.room for v in patrol.visits} == {r.name for r in patrol.flat.rooms}


def test_odometry_drifts_within_what_its_covariance_says() -> None:
    outside = 0
    for seed in range(20):
        patrol = World(seed, 300).patrol
        start, samples = patrol.pose_at(0.0), odometry(patrol, seed)
        last, true = samples[-1], patrol.pose_at(samples[-1].time_s)
        dx, dy = true.x - start.x, true.y - start.y
        c, s = np.cos(-start.yaw), np.sin(-start.yaw)
        error = np.hypot(last.pose.x - (c * dx - s * dy), last.pose.y - (s * dx + c * dy))
        assert error > 0.0
        assert last.variance_xy_m2 > samples[1].variance_xy_m2
        outside += error > 3 * np.sqrt(2 * last.variance_xy_m2)
    assert outside <= 4


def test_synthesised_sounds_are_sound() -> None:
    for name, sound in SOUNDS.items():
        assert (sound.wave is None) == (name in SPOKEN)
        if sound.wave is None:
            continue
        for repeats in range(1, sound.max_repeats + 1):
            seconds = sound.seconds(repeats, generator(1, "length"))
            wave = sound.wave(seconds, repeats, generator(1, name))
            again = sound.wave(seconds, repeats, generator(1, name))
            np.testing.assert_array_equal(wave, again)
            assert len(wave) == int(seconds * 16_000)
            assert np.isfinite(wave).all()
            assert 0.01 < np.sqrt(np.mean(wave**2)) < 1.2


def test_walls_and_distance_make_sounds_faint() -> None:
    world = World(21, 3600, dense=True)
    near = [h.snr_db for h in world.microphone.heard if h.clear]
    far = [h.snr_db for h in world.microphone.heard if not h.clear]
    assert len(near) > 3 * len(far) > 0
    assert max(far) < 10 <= min(near)


@pytest.mark.parametrize("shape", sorted(meshes()))
def test_meshes_are_closed_and_of_unit_size(shape: str) -> None:
    vertices, faces = meshes()[shape]
    edges = [tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in faces for i in range(3)]
    assert all(edges.count(e) == 2 for e in set(edges))
    assert 0.7 < np.ptp(vertices, axis=0).max() <= 1.2


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="seconds=0"):
        World(1, 0)
    with pytest.raises(ValueError, match="seed=-1"):
        World(-1, 10)
    assert Thing("red", "person").name == "person in red"
