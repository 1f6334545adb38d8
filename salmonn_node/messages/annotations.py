"""Boxes and captions on the picture of a piece of evidence, as Foxglove's image annotations."""

from __future__ import annotations

from typing import Any

from salmonn_node.messages.base import MessageTypes, time_message
from salmonn_node.stream.answers import Evidence

LINE_LOOP = 2  # of foxglove_msgs/PointsAnnotation
BOX_RGBA, TEXT_RGBA, BEHIND_RGBA = (1.0, 0.86, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.6)
LINE_PX, TEXT_PX = 1.0, 9.0


def image_annotations(types: MessageTypes, evidence: Evidence, size: tuple[int, int], caption: str) -> Any:
    """foxglove_msgs/ImageAnnotations for the picture (thumbnail) of a piece of evidence.

    A viewer draws them on the picture of the same stamp, which is the start of the evidence.

    Args:
        types: makes the messages; must know foxglove_msgs.
        evidence: what the picture shows; without a region there is no box.
        size: (width, height) of the picture in pixels; the region is in pixels of the camera's own picture.
        caption: text along the bottom of the picture.
    """
    stamp = time_message(types, evidence.interval.start_ns)
    points = []
    region = evidence.region
    if region is not None:
        across, down = size[0] / region.picture_width, size[1] / region.picture_height
        left, top = region.x * across, region.y * down
        right, bottom = (region.x + region.width) * across, (region.y + region.height) * down
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        points.append(
            types.new(
                "foxglove_msgs/msg/PointsAnnotation",
                timestamp=stamp,
                type=LINE_LOOP,
                points=[_point(types, x, y) for x, y in corners],
                outline_color=_colour(types, BOX_RGBA),
                outline_colors=[],
                fill_color=_colour(types, (0.0, 0.0, 0.0, 0.0)),
                thickness=LINE_PX,
            )
        )
    text = types.new(
        "foxglove_msgs/msg/TextAnnotation",
        timestamp=stamp,
        position=_point(types, 1.0, size[1] - 1.0),
        text=caption,
        font_size=TEXT_PX,
        text_color=_colour(types, TEXT_RGBA),
        background_color=_colour(types, BEHIND_RGBA),
    )
    return types.new("foxglove_msgs/msg/ImageAnnotations", circles=[], points=points, texts=[text] if caption else [])


def _point(types: MessageTypes, x: float, y: float) -> Any:
    return types.new("foxglove_msgs/msg/Point2", x=float(x), y=float(y))


def _colour(types: MessageTypes, rgba: tuple[float, float, float, float]) -> Any:
    r, g, b, a = rgba
    return types.new("foxglove_msgs/msg/Color", r=r, g=g, b=b, a=a)
