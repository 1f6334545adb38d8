"""The same recording live: a real node, a bag played into it with /clock, questions through the query service."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from salmonn_node.client import Memory
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.live.processes import end, free_domain, play, running_node, spun_node
from salmonn_node.model.checkpoint_cache import TINY
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.job import Job
from salmonn_node.replay.topic_choice import FROM_TF
from salmonn_node.replay.topics import IMAGE_TYPES, VIDEO_TYPES
from salmonn_node.ros.parameters import IMAGE_TOPICS
from salmonn_node.stream.answers import Answer

STARTUP_S = 120.0
ANSWER_S = 30.0  # for each question on a slow machine
STRAGGLERS_S = 10.0  # so long after the last answer a message may still arrive
MAX_QUESTIONS, MAX_TIMEOUT_S = 1000, 3600.0  # bounds of the node's parameters and of the service's queue
_POSES = {
    "nav_msgs/msg/Odometry": "odometry",
    "geometry_msgs/msg/PoseStamped": "pose",
    "geometry_msgs/msg/PoseWithCovarianceStamped": "pose_with_covariance",
}


TRANSPORTS = {IMAGE_TYPES[0]: "compressed", IMAGE_TYPES[1]: "raw"} | dict.fromkeys(VIDEO_TYPES, "video")


@dataclass(frozen=True)
class Wiring:
    """How a node listens to a bag's topics: parameters, remaps, and the topics to wait for."""

    parameters: dict[str, str]
    remaps: dict[str, str]
    topics: tuple[str, ...]


def wiring(job: Job) -> Wiring:
    """Parameters and remaps that make a node hear what the offline replay reads."""
    with _stream(job) as bag:
        chosen, types = bag.topics, bag.types
    transports = {name: TRANSPORTS[types[topic]] for name, topic in chosen.cameras.items()}
    remaps = {f"{name}/{IMAGE_TOPICS[transports[name]]}": topic for name, topic in chosen.cameras.items()}
    remaps |= {f"{name}/audio": topic for name, topic in chosen.microphones.items()}
    infos = {f"{name}/camera_info": topic for name, topic in chosen.infos.items()}
    from_tf = chosen.pose == FROM_TF
    if chosen.pose and not from_tf:
        remaps["pose"] = chosen.pose
    parameters = {
        "use_sim_time": "true",
        "persistence": "false",
        "threads": "1",
        "cameras": _list(chosen.cameras),
        "microphones": _list(chosen.microphones),
        "image_reliability": "reliable",
        "image_depth": "100",
        "audio_depth": "1000",
        "pose_depth": "1000",
        "pose_reliability": "reliable",
        "pose_type": "tf" if from_tf else _POSES[types[chosen.pose]] if chosen.pose else "none",
        "map_id": job.settings.map_id or '""',
        "frame_rate_hz": str(float(job.settings.frame_rate_hz)),
        "max_evidence": "3",
    }
    if from_tf:
        parameters["pose_frame"], parameters["base_frame"] = chosen.pose_frames
    parameters |= {f"{name}.image_transport": transport for name, transport in transports.items()}
    parameters["ground_z_m"] = str(float(job.settings.ground_z_m))
    for camera, mount in job.settings.mounts:
        parameters[f"{camera}.mount"] = "[" + ",".join(str(float(v)) for v in mount) + "]"
    parameters |= {f"{source}.stamp_offset_s": str(float(s)) for source, s in job.settings.stamp_offsets}
    network = job.settings.network
    parameters |= {name: str(value) for name, value in dataclasses.asdict(network).items()}
    if Path(network.checkpoint).is_dir() and network.checkpoint != TINY:
        parameters["checkpoint"] = str(Path(network.checkpoint).resolve())
    return Wiring(parameters, remaps | infos, tuple(remaps.values()))


@dataclass(frozen=True)
class LiveRun:
    """What a live replay gave.

    Attributes:
        answers: by question id.
        lost: topic -> messages that were played and did not arrive.
        late: source -> observations that came after a view that should have shown them.
        drops: reason -> observations that the node refused or left out, those of its sampling among them.
    """

    answers: dict[str, Answer]
    lost: dict[str, int]
    late: dict[str, int]
    drops: dict[str, int]


def ask_live(job: Job, rate: float = 1.0) -> LiveRun:
    """Play a job's bag into a real node and ask its questions over the query service, each with `before` at its stamp.

    All questions are with the node before the first message is played, so that each reads the memory as it was when
    all that is stamped up to it had been taken in, however fast the bag is played and however slow the machine is.

    Args:
        job: recording, questions, settings; `ask_ns` must not lie behind the last stamp.
        rate: times as fast as recorded.

    Raises:
        ValueError: too many questions for a node, or a bag that takes longer than its longest deadline.
        RuntimeError: the node does not start, or the bag cannot be played; the logs lie in the job's folder.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    wired, number = wiring(job), len(job.questions)
    timeout_s = _span_s(job) / rate + STARTUP_S + ANSWER_S * number
    if number > MAX_QUESTIONS:
        raise ValueError(f"{number} questions, a node takes at most {MAX_QUESTIONS} at once")
    if timeout_s > MAX_TIMEOUT_S:
        raise ValueError(f"questions would be open for {timeout_s:.0f} s, at most {MAX_TIMEOUT_S:.0f}: play it faster")
    domain, name = free_domain(), f"salmonn_replay_{os.getpid()}"
    parameters = wired.parameters | {
        "max_questions": str(max(1, number)),
        "max_timeout_s": str(MAX_TIMEOUT_S),
        "diagnostics_period_s": "0.2",
    }
    report = job.folder / "played.json"
    report.unlink(missing_ok=True)
    logs = f"see node.log and player.log in {job.folder}"
    with (
        running_node(job.folder / "node.log", parameters, {**wired.remaps, "__node": name}, domain) as process,
        spun_node("salmonn_planner", domain) as node,
    ):
        health, memory = _Health(node, name), Memory(node, name)
        memory.startup(STARTUP_S)
        answers: dict[str, Answer] = {}

        def ask(record: QuestionRecord) -> None:
            answers[record.id] = _ask(memory, record, timeout_s)

        for record in sorted(job.questions, key=lambda r: (r.ask_ns, r.id)):
            threading.Thread(target=ask, args=(record,), name=f"asks {record.id}", daemon=True).start()

        def await_or_raise(condition: Callable[[], bool], seconds: float, what: str) -> None:
            over = health.wait(lambda: condition() or process.poll() is not None, seconds)
            if not over or not condition():
                raise RuntimeError(f"{what}, {logs}")

        def are_with_the_node() -> bool:
            return health.number("memory", "waiting_views") + len(answers) >= number

        await_or_raise(are_with_the_node, STARTUP_S, "the questions did not reach the node")
        player = play(
            job.recording, rate, job.folder / "player.log", wired.topics, meet=name, report=report, domain=domain
        )
        try:
            await_or_raise(lambda: player.poll() is not None, timeout_s, "the bag was not played to its end")
            if player.returncode:
                raise RuntimeError(f"the bag could not be played, {logs}")
            await_or_raise(lambda: len(answers) == number, timeout_s, "not every question was answered")
        finally:
            end(player)
        sources = {topic: _source_of(heard) for heard, topic in wired.remaps.items()}
        played = {topic: n for topic, n in json.loads(report.read_text()).items() if topic in sources}

        def lost() -> dict[str, int]:
            found = {topic: n - health.number(f"input {sources[topic]}", "received") for topic, n in played.items()}
            return {topic: n for topic, n in found.items() if n}

        health.wait(lambda: not lost(), STRAGGLERS_S)
        late = {source: health.number(f"input {source}", "late") for source in sources.values()}
        return LiveRun(answers, lost(), {s: n for s, n in late.items() if n}, health.drops())


def last_stamp(job: Job) -> int:
    """Newest stamp in a job's recording, ns; what is asked behind it is asked at it."""
    with _stream(job) as stream:
        return max((observation.stamp_ns for _, observation in stream), default=0)


class _Health:
    """What a node says on /diagnostics."""

    def __init__(self, node: Node, name: str) -> None:
        self._name = name
        self._change = threading.Condition()
        self._values: dict[str, dict[str, str]] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 50)

    def _hear(self, message: DiagnosticArray) -> None:
        with self._change:
            for status in message.status:
                self._values[status.name] = {pair.key: pair.value for pair in status.values}
            self._change.notify_all()

    def number(self, part: str, key: str) -> int:
        """A counter of a part of the node, 0 before it is heard of."""
        return int(self._values.get(f"{self._name}: {part}", {}).get(key, 0))

    def drops(self) -> dict[str, int]:
        """Observations that were not taken in, by reason."""
        memory = self._values.get(f"{self._name}: memory", {})
        return {key.partition(".")[2]: int(n) for key, n in memory.items() if key.startswith("dropped.")}

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on what is said; whether it came true in time."""
        with self._change:
            return self._change.wait_for(condition, timeout_s)


def _ask(memory: Memory, record: QuestionRecord, timeout_s: float) -> Answer:
    question = record.question()
    return memory.ask(
        question.text,
        answer_type=question.answer_type,
        choices=question.choices,
        before_ns=question.before_ns,
        timeout_s=timeout_s,
    )


def _source_of(topic: str) -> str:
    """Source that a node's topic, before it is remapped, belongs to: "front/image/compressed" is that of front."""
    return topic.partition("/")[0]


def _span_s(job: Job) -> float:
    with _stream(job) as stream:
        return stream.duration_s


def _stream(job: Job) -> BagStream:
    settings = job.settings
    return BagStream(job.recording, cameras=settings.cameras, microphones=settings.microphones, pose=settings.pose)


def _list(names: dict[str, str]) -> str:
    return "[" + ",".join(names or [""]) + "]"
