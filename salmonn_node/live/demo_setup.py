"""What the demo starts with: a recording with its questions, the node's parameters, and lines that tell progress."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from salmonn_node.evaluation.questions import QuestionRecord, read_questions
from salmonn_node.live.demo_recording import BAG, QUESTIONS
from salmonn_node.stream.observations import Interval

STARTUP_S, ANSWER_S = 120.0, 60.0
NODE_PARAMETERS = {
    "use_sim_time": "true",
    "cameras": "[front]",
    "microphones": "[mic]",
    "image_transport": "compressed",
    "image_reliability": "reliable",
    "image_depth": "50",
    # The bag is played faster than recorded: a pause of a third of a second would overflow the usual 100 chunks.
    "audio_depth": "1000",
    "pose_depth": "1000",
    "pose_reliability": "reliable",
    "map_id": "demo",
    "persistence": "false",
    "max_new_tokens": "12",
    "max_evidence": "3",
    "threads": "1",  # with a network this small, more threads only wait for each other
}


@dataclass(frozen=True)
class DemoOptions:
    """What the user chose.

    Attributes:
        bag: "world" or "photographs".
        rate: how many times as fast as recorded the bag is played.
        checkpoint: "tiny" or a checkpoint folder.
        output: folder for pictures, answers and logs; it is emptied if an earlier demo made it.
        page: keep node and page up after the questions, until Ctrl-C.
    """

    bag: str
    rate: float
    checkpoint: str
    output: Path
    page: bool = False


@dataclass(frozen=True)
class DemoRecording:
    """A bag with its questions, and how the node listens to it.

    Attributes:
        parameters, remaps: of the node, in addition to NODE_PARAMETERS.
        topics: the player waits until each of them has a subscriber.
    """

    bag: Path
    questions: list[QuestionRecord]
    parameters: dict[str, str]
    remaps: dict[str, str]
    topics: tuple[str, ...]


class Teller:
    """Prints what is done, with the seconds since the demo began."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def done(self, text: str) -> None:
        """Print one step as done."""
        self._console.print(f"[green]✓[/green] [dim]{self.elapsed_s:4.0f} s[/dim]  {text}")


def prepare(options: DemoOptions) -> DemoRecording:
    """Empty the output folder and get the recording ready.

    Raises:
        ValueError: the output folder holds something that no demo wrote.
    """
    _empty(options.output)
    topics = ("/front/image/compressed", "/mic/audio")
    if options.bag == "world":
        parameters = {"pose_type": "pose_with_covariance"}
        return DemoRecording(BAG, list(read_questions(QUESTIONS)), parameters, {"pose": "/pose"}, (*topics, "/pose"))
    from salmonn_node.replay.photographs import photograph_questions, write_photographs

    bag = options.output / "bag"
    write_photographs(bag)
    return DemoRecording(bag, photograph_questions(), {"pose_type": "odometry"}, {"pose": "/odom"}, (*topics, "/odom"))


def _empty(output: Path) -> None:
    mark = output / ".salmonn_demo"
    if output.exists() and any(output.iterdir()) and not mark.exists():
        raise ValueError(f"{output} holds files that no demo wrote; name another folder with --output, or empty it")
    if mark.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    mark.touch()


def span_of(path: Path) -> Interval:
    """The stretch of time that a bag covers."""
    from salmonn_node.replay.bag import Bag

    with Bag(path) as bag:
        return Interval(bag.start_ns, bag.end_ns)
