"""Ids of goals that name their client: valid UUIDs, never the same twice, and no other id passes for one."""

from __future__ import annotations

import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.client.goal_ids import is_of, names_client, new_goal_id


@given(client=st.text(), other=st.text())
def test_an_id_names_its_client_alone(client: str, other: str) -> None:
    goal_id = new_goal_id(client)
    assert len(goal_id) == 16
    assert names_client(goal_id)
    assert is_of(goal_id, client)
    assert is_of(goal_id, other) == (client == other)
    parsed = uuid.UUID(bytes=goal_id)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)


def test_ids_are_never_the_same() -> None:
    assert len({new_goal_id("/planner") for _ in range(10_000)}) == 10_000


def test_ids_of_other_clients_name_nobody() -> None:
    chance = random.Random(1)
    assert not any(names_client(chance.randbytes(16)) for _ in range(100_000))
    assert not any(names_client(uuid.uuid4().bytes) for _ in range(1_000))
