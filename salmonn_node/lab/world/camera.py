"""Robot camera: render any moment of a stream off screen, with a segmentation of the picture."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.lab.world.layout import STAND_HEIGHT_M, Flat
from salmonn_node.lab.world.objects import Thing
from salmonn_node.lab.world.randomness import generator
from salmonn_node.lab.world.scene import FIELD_OF_VIEW_Y_DEG, HIDDEN, scene_xml, thing_size_m
from salmonn_node.lab.world.schedule import Schedule

SENSOR_NOISE = 1.5  # standard deviation in grey levels at 640 pixels; smaller pictures average it out
LEAST_NOISE = 0.5
TURNED_RAD = 0.4  # things are turned a little, so that flat shapes show their thickness
DOOR_OPEN_RAD = np.deg2rad(-80.0)
SEGMENT_WIDTH, SEGMENT_HEIGHT = 160, 90


@dataclass(frozen=True)
class PictureRegion:
    """Area of the picture covered by a thing, stand or door.

    Attributes:
        share: share of the picture's pixels, 0..1.
        box: left, top, right, bottom as shares of width and height.
        whole: False if it touches the left or right edge of the picture.
    """

    share: float
    box: tuple[float, float, float, float]
    whole: bool


class Camera:
    """Render the scene of one stream. Needs MuJoCo and off-screen OpenGL (`MUJOCO_GL=osmesa`, or egl on a GPU).

    Args:
        schedule: events of the stream.
        seed: seed of the stream.
        width, height: size of the pictures, pixels. 16:9 gives the field of view in CameraInfo.
        supersample: render this many times larger and average, like the pixels of a camera.

    Raises:
        ImportError: the `world` extra is not installed.
        RuntimeError: there is no OpenGL to render with.
    """

    def __init__(self, schedule: Schedule, seed: int, width: int, height: int, supersample: int = 1) -> None:
        os.environ.setdefault("MUJOCO_GL", "osmesa")
        try:
            import mujoco
        except ImportError as error:
            raise ImportError("rendering the world needs mujoco: pip install 'salmonn_node[world]'") from error
        self._mujoco = mujoco
        self.schedule, self.seed, self.width, self.height = schedule, seed, width, height
        self._flat: Flat = schedule.flat
        self._noise = max(LEAST_NOISE, SENSOR_NOISE * min(1.0, width / 640))
        self._model = mujoco.MjModel.from_xml_string(scene_xml(self._flat, seed, schedule.things, schedule.people))
        self._data = mujoco.MjData(self._model)
        size = (height * supersample, width * supersample)
        try:
            self._renderer = mujoco.Renderer(self._model, *size)
            self._segments = mujoco.Renderer(self._model, SEGMENT_HEIGHT, SEGMENT_WIDTH)
        except Exception as error:
            raise RuntimeError(
                f"cannot render off screen with MUJOCO_GL={os.environ['MUJOCO_GL']}: {error}; "
                "on Debian or Ubuntu: apt-get install libosmesa6"
            ) from error
        self._segments.enable_segmentation_rendering()
        self._mocap = {self._model.body(i).name: int(self._model.body_mocapid[i]) for i in range(self._model.nbody)}
        self._geoms = {i: self._model.geom(i).name for i in range(self._model.ngeom)}
        self._lights = {self._model.light(i).name.split(":")[1]: i for i in range(self._model.nlight)}
        self._floors = {t: thing_size_m(seed, t) for t in schedule.things}
        self._key: object = None
        self._image: npt.NDArray[np.uint8] | None = None
        self._regions: dict[str, PictureRegion] | None = None

    def close(self) -> None:
        """Release the OpenGL contexts."""
        self._renderer.close()
        self._segments.close()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _place(self, name: str, x: float, y: float, z: float, yaw: float) -> None:
        index = self._mocap[name]
        self._data.mocap_pos[index] = (x, y, z)
        self._data.mocap_quat[index] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))

    def _arrange(self, time_s: float) -> None:
        """Place everything as it is at that time. Pictures of an unchanged scene are cached."""
        s = self.schedule
        pose = s.patrol.pose_at(time_s)
        spots = self._flat.spots
        stands = {p.name: s.on_stand[p.name].at(time_s) for p in spots if p.kind == "stand"}
        people = {p.name: s.people_at[p.name].at(time_s) for p in spots if p.kind == "stand"}
        doors = {p.name: s.door_open[p.name].at(time_s) for p in spots if p.kind == "door"}
        lights = {name: s.light_on[name].at(time_s) for name in self._lights}
        key = (pose, tuple(stands.items()), tuple(people.items()), tuple(doors.items()), tuple(lights.items()))
        if key == self._key:
            return
        self._key, self._image, self._regions = key, None, None
        for thing in (*s.things, *s.people):
            self._data.mocap_pos[self._mocap[f"thing:{thing.name}"]] = HIDDEN
        for spot in spots:
            facing = spot.heading_rad
            if spot.kind == "door":
                yaw = facing + (DOOR_OPEN_RAD if doors[spot.name] else 0.0)
                self._data.mocap_quat[self._mocap[f"leaf:{spot.name}"]] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
                continue
            thing, person = stands[spot.name], people[spot.name]
            if isinstance(thing, Thing):
                size = self._floors[thing]
                half = {"cube": 0.4, "pillar": 0.56, "diamond": 0.56}.get(thing.shape, 0.5) * size
                self._place(f"thing:{thing.name}", *spot.position, STAND_HEIGHT_M + half, facing + np.pi + TURNED_RAD)
            if isinstance(person, Thing) and spot.person is not None:
                self._place(f"thing:{person.name}", *spot.person, 0.0, facing + np.pi)
        self._place("robot", pose.x, pose.y, 0.0, pose.yaw)
        here = self._flat.room_at(pose.x, pose.y)
        near = {here, *self._flat.room(here).doorways.values()}
        for name, index in self._lights.items():
            self._model.light_active[index] = bool(lights[name]) and name in near
        self._mujoco.mj_forward(self._model, self._data)

    def picture(self, time_s: float) -> npt.NDArray[np.uint8]:
        """Render (height, width, 3) uint8 RGB at a moment, with seeded sensor noise."""
        self._arrange(time_s)
        if self._image is None:
            self._renderer.update_scene(self._data, "front")
            image = self._renderer.render()
            if image.shape[:2] != (self.height, self.width):
                image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
            self._image = np.array(image)
        rng = generator(self.seed, f"pixels {round(time_s * 1000)}")
        grain = rng.standard_normal(self._image.shape[:2], dtype=np.float32)[..., None] * self._noise
        return np.clip(self._image + np.round(grain), 0, 255).astype(np.uint8)

    def regions(self, time_s: float) -> dict[str, PictureRegion]:
        """Regions visible at a moment, by "thing:red ball", "stand:kitchen/north-east", "leaf:kitchen/door"."""
        self._arrange(time_s)
        if self._regions is None:
            self._segments.update_scene(self._data, "front")
            ids = self._segments.render()[..., 0]
            found = {}
            for number in np.unique(ids):
                name = self._geoms.get(int(number), "")
                if name:
                    rows, columns = np.nonzero(ids == number)
                    left, right = int(columns.min()), int(columns.max()) + 1
                    top, bottom = int(rows.min()), int(rows.max()) + 1
                    box = (left / SEGMENT_WIDTH, top / SEGMENT_HEIGHT, right / SEGMENT_WIDTH, bottom / SEGMENT_HEIGHT)
                    found[name] = PictureRegion(len(rows) / ids.size, box, left > 0 and right < SEGMENT_WIDTH)
            self._regions = found
        return self._regions


def camera_matrix(width: int, height: int) -> npt.NDArray[np.float64]:
    """(3, 3): pinhole matrix K in pixels for pictures of that size (16:9)."""
    focal = height / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW_Y_DEG) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
