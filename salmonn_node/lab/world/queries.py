"""Everything one can ask about a stream at a moment, with the right answer, generated from the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.queries_of_sounds import about_sounds, about_speech
from salmonn_node.lab.world.queries_of_things import about_colours, about_things
from salmonn_node.lab.world.queries_of_time import about_changes, about_order, about_states
from salmonn_node.lab.world.query import Query
from salmonn_node.lab.world.truth import Index, Truth


def all_queries(ix: Index, truth: Truth, every: list[Thing]) -> Iterator[Query]:
    """Yield all queries at the moment of the index, answerable or not."""
    parts: tuple[Callable[[], Iterator[Query]], ...] = (
        lambda: about_things(ix, every),
        lambda: about_sounds(ix, truth),
        lambda: about_colours(ix),
        lambda: about_speech(ix, every),
        lambda: about_order(ix, every),
        lambda: about_states(ix),
        lambda: about_changes(ix),
    )
    for part in parts:
        yield from part()
