"""What the node runs on: the network, the observer and the answerer, made from its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.ros.parameters import NodeParameters


@dataclass
class Backend:
    """The rooms behind the doors of ROS.

    Attributes:
        observer: takes observations in (salmonn_node.observer.Observer).
        answerer: answers questions (salmonn_node.answering.answerer.Answerer).
        checkpoint_id: the network's weights.
        trained: False: untrained weights, answers mean nothing.
        encoders: (backend, reason) of "vision" and "audio".
        persistence: the store's state in words; "off" without one.
        flushers: called in order when the node stops listening.
        closers: called in order when the node cleans up.
    """

    observer: Any
    answerer: Any
    checkpoint_id: str
    trained: bool
    encoders: dict[str, tuple[str, str]]
    persistence: str = "off"
    flushers: list[Callable[[], None]] = field(default_factory=list)
    closers: list[Callable[[], None]] = field(default_factory=list)

    def flush(self) -> None:
        """Bring to disk what is to survive this process."""
        for flusher in self.flushers:
            flusher()

    def close(self) -> None:
        """Free everything; what was queued is not taken in."""
        for closer in self.closers:
            closer()


def build_backend(parameters: NodeParameters) -> Backend:
    """Load the network and start the observer. Takes as long as loading takes.

    Raises:
        ValueError: a parameter asks for what there is not.
        OSError: files of a checkpoint are missing.
    """
    import torch

    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.observer import Observer

    if parameters.threads:
        torch.set_num_threads(parameters.threads)
    model = load_model(parameters)
    encoders, close_encoders = _load_encoders(model, parameters)
    observer = Observer(model, frame_rate_hz=parameters.frame_rate_hz, memory_name=parameters.memory_name)
    answerer = Answerer(observer, max_new_tokens=parameters.max_new_tokens, max_evidence=parameters.max_evidence)
    return Backend(
        observer,
        answerer,
        model.checkpoint.id,
        model.checkpoint.trained,
        encoders,
        closers=[observer.close, close_encoders],
    )


def load_model(parameters: NodeParameters) -> Any:
    """The network on its device; raises ValueError naming the parameter that cannot be served."""
    import torch

    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

    device = parameters.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no GPU")
    if parameters.checkpoint:
        raise ValueError(f"checkpoint {parameters.checkpoint!r}: loading checkpoints is not built in yet")
    if parameters.network != "tiny":
        raise ValueError(f"network must be tiny, got {parameters.network!r}")
    model = VideoSalmonnS.tiny(parameters.seed)
    model.network.to(device)
    return model


def _load_encoders(model: Any, parameters: NodeParameters) -> tuple[dict[str, tuple[str, str]], Callable[[], None]]:
    """Put built engines in the encoders' places; says what runs and why."""
    from salmonn_node.engines.encoders import load_encoders
    from salmonn_node.engines.runtime import EngineSettings

    settings = EngineSettings(backend=parameters.engine_backend, root=parameters.engine_directory)
    network = model.network
    encoders = load_encoders(network.vision, network.audio, model.config.name, settings)
    model.vision_encoder = encoders.vision
    if encoders.audio is not None:
        model.audio_encoder = encoders.audio
    summaries = {name: encoders.summary(name) for name in ("vision", "audio")}
    return {name: (line.backend, line.detail) for name, line in summaries.items()}, encoders.close
