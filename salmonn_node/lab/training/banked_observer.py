"""Observer of encoded streams: the node's memory, evidence and answers, without encoding pictures again.

It replaces the node's observer. Everything behind it is the real code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.confidence import Calibration
from salmonn_node.answering.grounding import Grounding
from salmonn_node.lab.training.memories import CAMERA, MICROPHONE, observe
from salmonn_node.lab.training.streams import Tokens
from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M, camera_model
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, Pose
from salmonn_node.stream.transforms import from_rpy

PICTURE = (640, 360)


class BankedObserver:
    """Observe encoded streams, one after another, as the node observes a camera and a microphone.

    Args:
        model: the network. Its encoders are not used.

    Attributes:
        memory, evidence, memory_id, source_names, start_ns, newest_ns: as those of `Observer`.
    """

    def __init__(self, model: VideoSalmonnS) -> None:
        self.model = model
        self.memory = model.new_memory()
        self.evidence = EvidenceIndex(":memory:")
        self.start_ns = self.newest_ns = START_NS
        self.memory_id = "banked"
        self.source_names = (CAMERA, MICROPHONE)
        self.seconds = 0

    def take(self, tokens: Tokens) -> None:
        """Observe a stream, after those observed before."""
        ids = [self.evidence.add_pose(self._pose(tokens, s)) for s in range(tokens.truth.seconds)]
        for moments in observe(self.model, self.memory, tokens, self.seconds):
            for moment in moments:
                second = (moment.interval.start_ns - START_NS) // SECOND_NS - self.seconds
                self.evidence.add(replace(moment, pose_id=ids[min(int(second), len(ids) - 1)]))
        self.seconds += tokens.truth.seconds
        self.newest_ns = START_NS + self.seconds * SECOND_NS

    def _pose(self, tokens: Tokens, second: int) -> Pose:
        pose = tokens.truth.moments[second].pose
        stamp = START_NS + (self.seconds + second) * SECOND_NS
        return Pose(stamp, "map", np.array([pose.x, pose.y, 0.0]), from_rpy(0.0, 0.0, pose.yaw))

    def wait_for_view(
        self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = (), **_: object
    ) -> SceneView:
        """Return the view. Everything has already been observed."""
        return self.model.view(self.memory, after_ns, before_ns, sources)

    def picture_size(self, source: str) -> tuple[int, int]:
        """Size of the pictures that were encoded, as a camera would send them."""
        return PICTURE


def answerer(observer: BankedObserver, calibration: Calibration | None = None) -> Answerer:
    """Make the node's answerer, with the camera and mount of the world's robot."""
    grounding = Grounding({CAMERA: CAMERA_MOUNT}, ground_z_m=GROUND_Z_M)
    grounding.cameras.add(CAMERA, 0, camera_model(*PICTURE))
    return Answerer(observer, max_new_tokens=16, grounding=grounding, calibration=calibration)
