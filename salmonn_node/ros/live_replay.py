"""The same recording live: a real node, a bag played into it with /clock, questions through the query service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.job import Job
from salmonn_node.replay.topics import CAMERA_INFO_TYPE, IMAGE_TYPES, camera_of_info
from salmonn_node.ros.processes import client, end, own_domain, play, running_node
from salmonn_node.stream.answers import Answer

STARTUP_S, ANSWER_S, MAX_TEXT = 120.0, 120.0, 48
_POSES = {
    "nav_msgs/msg/Odometry": "odometry",
    "geometry_msgs/msg/PoseStamped": "pose",
    "geometry_msgs/msg/PoseWithCovarianceStamped": "pose_with_covariance",
}


@dataclass(frozen=True)
class Wiring:
    """How a node listens to a bag's topics: parameters, remaps, and the topics to wait for."""

    parameters: dict[str, str]
    remaps: dict[str, str]
    topics: tuple[str, ...]


def wiring(job: Job) -> Wiring:
    """Parameters and remaps that make a node hear what the offline replay reads.

    Raises:
        ValueError: the bag mixes compressed and raw cameras, which one node cannot subscribe to.
    """
    with BagStream(
        job.recording, cameras=job.settings.cameras, microphones=job.settings.microphones, pose=job.settings.pose
    ) as bag:
        chosen, types = bag.topics, bag.types
    transports = {types[topic] for topic in chosen.cameras.values()}
    if len(transports) > 1:
        raise ValueError(f"{job.recording}: a node subscribes to compressed or to raw cameras, this bag has both")
    compressed = transports == {IMAGE_TYPES[0]}
    remaps = {f"{name}/{'image/compressed' if compressed else 'image'}": t for name, t in chosen.cameras.items()}
    remaps |= {f"{name}/audio": topic for name, topic in chosen.microphones.items()}
    infos = {camera_of_info(topic): topic for topic, kind in types.items() if kind == CAMERA_INFO_TYPE}
    infos = {f"{name}/camera_info": topic for name, topic in infos.items() if name in chosen.cameras}
    if chosen.pose:
        remaps["pose"] = chosen.pose
    parameters = {
        "use_sim_time": "true",
        "persistence": "false",
        "threads": "1",
        "cameras": _list(chosen.cameras),
        "microphones": _list(chosen.microphones),
        "image_transport": "compressed" if compressed else "raw",
        "image_reliability": "reliable",
        "image_depth": "100",
        "audio_depth": "1000",
        "pose_depth": "1000",
        "pose_type": _POSES[types[chosen.pose]] if chosen.pose else "none",
        "map_id": job.settings.map_id or '""',
        "frame_rate_hz": str(float(job.settings.frame_rate_hz)),
        "max_new_tokens": str(MAX_TEXT),
        "max_evidence": "3",
    }
    parameters["ground_z_m"] = str(float(job.settings.ground_z_m))
    for camera, mount in job.settings.mounts:
        parameters[f"{camera}.mount"] = "[" + ",".join(str(float(v)) for v in mount) + "]"
    if Path(job.settings.checkpoint).is_dir():
        parameters["checkpoint"] = str(Path(job.settings.checkpoint).resolve())
    return Wiring(parameters, remaps | infos, tuple(remaps.values()))


def ask_live(job: Job, rate: float = 1.0) -> dict[str, Answer]:
    """Play a job's bag into a real node and ask its questions, each with `before` at its stamp; answers by id."""
    own_domain()
    job.folder.mkdir(parents=True, exist_ok=True)
    wired = wiring(job)
    answers: dict[str, Answer] = {}
    with running_node(job.folder / "node.log", wired.parameters, wired.remaps), client("salmonn_replay") as memory:
        memory.startup(STARTUP_S)
        player = play(job.recording, rate, job.folder / "player.log", wired.topics)
        try:
            for record in sorted(job.questions, key=lambda r: (r.ask_ns, r.id)):
                question = record.question()
                answers[record.id] = memory.ask(
                    question.text,
                    answer_type=question.answer_type,
                    choices=question.choices,
                    before_ns=question.before_ns,
                    timeout_s=ANSWER_S,
                )
        finally:
            end(player)
    return answers


def _list(names: dict[str, str]) -> str:
    return "[" + ",".join(names or [""]) + "]"
