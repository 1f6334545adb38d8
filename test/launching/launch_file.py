"""Run one launch file, as `ros2 launch` does: launch_file.py FILE [NAME:=VALUE ...]; the exit status is launch's."""

from __future__ import annotations

import sys

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

from launch import LaunchDescription, LaunchService


def main(file: str, *arguments: str) -> int:
    pairs = [argument.partition(":=")[::2] for argument in arguments]
    service = LaunchService()
    source = AnyLaunchDescriptionSource(file)
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)]),
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
