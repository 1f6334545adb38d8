"""Oracle: answer questions by reading the truth second by second, independently of `queries.py`. Must score 1.0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.world.objects import PERSON
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.truth import START_NS, SoundTruth, Truth, WorldMoment
from salmonn_node.stream.answers import Answer, AnswerType, Evidence, Outcome, PoseKind
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


class _Nothing(Exception):
    """The stream does not contain the answer."""


def _ns(time_s: float) -> int:
    return START_NS + round(time_s * SECOND_NS)


class Oracle:
    """Answer questions from the truth of one stream.

    Args:
        truth: truth of the stream that the questions are about.
    """

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def __call__(self, record: QuestionRecord) -> Answer:
        """Answer from what was seen and heard before the question. Reads `about`, not the words."""
        self._moments = [m for m in self._truth.moments if m.stamp_ns <= record.ask_ns]
        self._sounds = [s for s in self._truth.sounds if s.clear and _ns(s.end_s) <= record.ask_ns]
        about = {k: str(v) for k, v in record.about.items()}
        answer: Callable[[dict[str, str], QuestionRecord], Answer] = getattr(self, f"_{about['template']}")
        try:
            return answer(about, record)
        except _Nothing:
            return Answer(outcome=Outcome.NOT_OBSERVED, answer_type=AnswerType[record.answer_type])

    # what was seen and heard

    def _sights(self, name: str) -> list[list[WorldMoment]]:
        """Looks at a thing in at least two consecutive frames."""
        looks: list[list[WorldMoment]] = []
        spot = ""
        for m in self._moments:
            here = [s for s in m.seen if s.clear and s.thing.name == name]
            if here:
                follows = looks and looks[-1][-1].second == m.second - 1 and here[0].spot == spot
                looks[-1].append(m) if follows else looks.append([m])
                spot = here[0].spot
        looks = [look for look in looks if len(look) >= 2]
        if not looks:
            raise _Nothing
        return looks

    def _heard(self, title: str) -> list[SoundTruth]:
        sounds = [s for s in self._sounds if SOUNDS[s.name].title == title]
        if not sounds:
            raise _Nothing
        return sounds

    def _visual(self, look: list[WorldMoment]) -> tuple[Evidence, ...]:
        return (Evidence(Interval(look[0].stamp_ns, look[-1].stamp_ns), "vision", "front", "", 1.0),)

    def _audible(self, sound: SoundTruth) -> tuple[Evidence, ...]:
        return (Evidence(Interval(_ns(sound.start_s), _ns(sound.end_s)), "audio", "mic", "", 1.0),)

    # one method per template

    def _existence_thing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return Answer(binary=True, evidence=self._visual(self._sights(about["thing"])[-1]))

    def _existence_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return Answer(binary=True, evidence=self._audible(self._heard(about["sound"])[-1]))

    def _when(self, evidence: tuple[Evidence, ...]) -> Answer:
        return Answer(event=evidence[0].interval, evidence=evidence)

    def _when_first_thing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._when(self._visual(self._sights(about["thing"])[0]))

    def _when_last_thing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._when(self._visual(self._sights(about["thing"])[-1]))

    def _when_first_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._when(self._audible(self._heard(about["sound"])[0]))

    def _when_last_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._when(self._audible(self._heard(about["sound"])[-1]))

    def _position(
        self, xyz: tuple[float, ...], kind: PoseKind, evidence: tuple[Evidence, ...], stamp_ns: int
    ) -> Answer:
        pose = Pose(stamp_ns, "map", np.array(xyz), np.array([0.0, 0.0, 0.0, 1.0]))
        return Answer(pose=pose, pose_kind=kind, evidence=evidence)

    def _where_robot_thing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        look = self._sights(about["thing"])[-1]
        pose = look[-1].pose
        return self._position((pose.x, pose.y, 0.0), PoseKind.OBSERVER, self._visual(look), look[-1].stamp_ns)

    def _where_robot_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        sound = self._heard(about["sound"])[-1]
        pose = self._moments[int(sound.start_s)].pose
        return self._position((pose.x, pose.y, 0.0), PoseKind.OBSERVER, self._audible(sound), _ns(sound.start_s))

    def _where_object(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        look = self._sights(about["thing"])[-1]
        seen = next(s for s in look[-1].seen if s.thing.name == about["thing"])
        return self._position(seen.position, PoseKind.OBJECT, self._visual(look), look[-1].stamp_ns)

    def _room(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        look = self._sights(about["thing"])[-1]
        room = next(s for s in look[-1].seen if s.thing.name == about["thing"]).room
        return Answer(text=room, evidence=self._visual(look))

    def _how_long_thing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        look = self._sights(about["thing"])[-1]
        return Answer(duration_s=float(len(look)), evidence=self._visual(look))

    def _how_long_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        sound = self._heard(about["sound"])[-1]
        return Answer(duration_s=sound.end_s - sound.start_s, evidence=self._audible(sound))

    def _count_sound(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        sound = self._heard(about["sound"])[-1]
        return Answer(count=sound.repeats, evidence=self._audible(sound))

    def _count_things(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        shape = "cross" if about["shapes"] == "crosses" else about["shapes"][:-1]
        found: dict[str, list[WorldMoment]] = {}
        for name in {s.thing.name for m in self._moments for s in m.seen if s.clear and s.thing.shape == shape}:
            found[name] = self._sights(name)[-1]
        if not found:
            raise _Nothing
        return Answer(count=len(found), evidence=tuple(e for look in found.values() for e in self._visual(look)))

    def _colour(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        shape, room = about["shape"], about["room"]
        for name in sorted({s.thing.name for m in self._moments for s in m.seen if s.clear and s.thing.shape == shape}):
            for look in self._sights(name):
                seen = next(s for s in look[0].seen if s.thing.name == name)
                if seen.room == room:
                    return Answer(text=seen.thing.colour, evidence=self._visual(look))
        raise _Nothing

    def _seen_when_heard(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        sound = self._heard(about["sound"])[-1]
        moment = self._moments[round(sound.start_s + 0.01)]
        if len(moment.seen) != 1:
            raise _Nothing
        return Answer(text=moment.seen[0].thing.name, evidence=self._audible(sound))

    def _said_last_digit(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        digits = [s for s in self._sounds if s.name.startswith("digit_")]
        if not digits:
            raise _Nothing
        return Answer(text=SPOKEN[digits[-1].name], evidence=self._audible(digits[-1]))

    def _said_while_seeing(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        for look in self._sights(about["thing"]):
            for s in self._sounds:
                if s.name in SPOKEN and look[0].second <= s.start_s and s.end_s <= look[-1].second + 0.5:
                    return Answer(text=SPOKEN[s.name], evidence=self._audible(s))
        raise _Nothing

    def _first_of(self, record: QuestionRecord, firsts: list[tuple[float, tuple[Evidence, ...]]]) -> Answer:
        earliest = min(range(len(firsts)), key=lambda i: firsts[i][0])
        return Answer(choice_index=earliest, text=record.choices[earliest], evidence=firsts[earliest][1])

    def _order_sounds(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        sounds = [self._heard(about[k])[0] for k in ("a", "b")]
        return self._first_of(record, [(s.start_s, self._audible(s)) for s in sounds])

    def _order_things(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        looks = [self._sights(about[k])[0] for k in ("a", "b")]
        return self._first_of(record, [(look[0].second, self._visual(look)) for look in looks])

    def _door(self, room: str, last: bool) -> Answer:
        looks = [(m, x) for m in self._moments for x in m.looked if x.spot == f"{room}/door"]
        if not looks:
            raise _Nothing
        moment, look = looks[-1 if last else 0]
        index = 0 if look.state else 1
        return Answer(choice_index=index, text=("open", "shut")[index], evidence=self._visual([moment]))

    def _door_now(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._door(about["room"], last=True)

    def _door_earlier(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._door(about["room"], last=False)

    def _still_there(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        first = self._sights(about["thing"])[0]
        spot = next(s.spot for s in first[0].seen if s.thing.name == about["thing"])
        moment, state = [(m, x.state) for m in self._moments for x in m.looked if x.spot == spot][-1]
        name = getattr(state, "name", "")
        return Answer(binary=name == about["thing"], evidence=self._visual([moment]))

    def _changed(self, about: dict[str, str], new: bool) -> Answer:
        room = about["room"]
        visits: list[dict[str, list]] = []
        last = -2
        for m in self._moments:
            if m.room != room:
                continue
            if m.second != last + 1:
                visits.append({})
            last = m.second
            for x in m.looked:
                visits[-1].setdefault(x.spot, []).append((x.state, m))
        if self._moments[-1].room == room and visits:
            visits.pop()  # this visit has not ended
        visits = [v for v in visits if v]
        if len(visits) < 2:
            raise _Nothing
        before, after = visits[-2:]
        for spot in sorted(set(before) & set(after)):
            a, b = before[spot][0][0], after[spot][0][0]
            thing = b if new else a
            if not spot.endswith("/door") and a != b and thing is not None:
                assert thing.shape != PERSON
                return Answer(text=thing.name, evidence=self._visual([m for _, m in (after if new else before)[spot]]))
        raise _Nothing

    def _appeared(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._changed(about, new=True)

    def _gone(self, about: dict[str, str], record: QuestionRecord) -> Answer:
        return self._changed(about, new=False)
