"""What is asked and answered: Question, Answer, Evidence as plain types; the ROS messages mirror them one to one."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from salmonn_node.stream.observations import Interval, Pose


class AnswerType(enum.IntEnum):
    """What kind of answer is wanted; ANY lets the answerer choose and say so."""

    ANY = 0
    TEXT = 1
    BINARY = 2
    POSITION = 3
    TIME = 4
    DURATION = 5
    COUNT = 6
    CHOICE = 7


class Outcome(enum.IntEnum):
    """What came of the question, when there was no error."""

    ANSWERED = 0
    NOT_OBSERVED = 1
    AMBIGUOUS = 2


class ErrorCode(enum.IntEnum):
    """Why there is no answer; NONE when there is one."""

    NONE = 0
    NOT_ACTIVE = 1
    INVALID_REQUEST = 2
    TIMEOUT = 3
    BUSY = 4
    TRANSFORM_ERROR = 5
    EMPTY_MEMORY = 6
    MODEL_ERROR = 7
    CANCELED = 8


class PoseKind(enum.IntEnum):
    """Whose pose an answer gives: the robot's at the time of the evidence, or the object's."""

    OBSERVER = 0
    OBJECT = 1


@dataclass(frozen=True)
class Question:
    """A planner's question.

    Attributes:
        text: the question in plain words, not empty.
        answer_type: what kind of answer is wanted.
        choices: options of a CHOICE question, at least two.
        after_ns: start of the window of memory to read; 0 is the memory's start.
        before_ns: end of that window; 0 is now.
        sources: cameras and microphones to read; empty means all.
        target_frame: frame for poses; empty means the frame in which they were observed.
        timeout_s: deadline in seconds from receipt; 0 is the server's default.
        max_evidence: at most this many pieces of evidence; 0 is the server's default.
        want_thumbnails: whether evidence carries JPEG pictures.
    """

    text: str
    answer_type: AnswerType = AnswerType.ANY
    choices: tuple[str, ...] = ()
    after_ns: int = 0
    before_ns: int = 0
    sources: tuple[str, ...] = ()
    target_frame: str = ""
    timeout_s: float = 0.0
    max_evidence: int = 0
    want_thumbnails: bool = False


@dataclass(frozen=True)
class Region:
    """A box in a picture, in pixels of a picture of `picture_width` x `picture_height`.

    Attributes:
        x, y: left and top edge, the first pixel inside.
        width, height: at least 1.
        picture_width, picture_height: size of the picture as the camera sent it.
        cell_px: height of the smallest thing that the network can tell apart there; 0 where it is not known. It is not
            part of messages and files.
    """

    x: int
    y: int
    width: int
    height: int
    picture_width: int
    picture_height: int
    cell_px: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Evidence:
    """One stretch of memory that an answer rests on.

    Attributes:
        interval: when it was observed.
        modality: "vision" or "audio".
        source: camera or microphone name.
        frame_id: the sensor's frame.
        score: 0..1, how much of the answer rests on it.
        pose: the observer's pose then, None when unknown.
        thumbnail: JPEG bytes, empty unless asked for.
        region: the part of the strongest picture (that of the thumbnail) that it rests on; None for sound.
        later_pose: the robot's pose at the second of the two frames that the strongest picture's tokens are made of,
            where it is known. It is not part of messages and files.
    """

    interval: Interval
    modality: str
    source: str
    frame_id: str
    score: float
    pose: Pose | None = None
    thumbnail: bytes = b""
    region: Region | None = None
    later_pose: Pose | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """The typed answer; fields that do not belong to `answer_type` keep their defaults.

    Attributes:
        event: when it happened (TIME, DURATION; also set where evidence gives it).
        duration_s: seconds (DURATION).
        confidence: calibrated probability of the typed answer, NaN when uncalibrated.
        memory_start_ns, last_observation_ns: span of the memory that was read.
        latency_s: from receipt to reply.
    """

    error_code: ErrorCode = ErrorCode.NONE
    error_msg: str = ""
    outcome: Outcome = Outcome.ANSWERED
    answer_type: AnswerType = AnswerType.TEXT
    text: str = ""
    binary: bool = False
    choice_index: int = -1
    pose: Pose | None = None
    pose_kind: PoseKind = PoseKind.OBSERVER
    event: Interval | None = None
    duration_s: float = 0.0
    count: int = 0
    confidence: float = math.nan
    evidence: tuple[Evidence, ...] = field(default=())
    map_id: str = ""
    memory_id: str = ""
    memory_start_ns: int = 0
    last_observation_ns: int = 0
    latency_s: float = 0.0
