"""Play a bag through the running system: the node on simulated time, and `ros2 bag play` with /clock."""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    TimerAction,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    "bag": (None, "Bag to play: an .mcap file or a folder of rosbag2."),
    "rate": ("1.0", "How many times faster than it was recorded."),
    "start_after_s": ("8.0", "Seconds to wait for the node to load before the bag starts."),
    "params_file": (
        PathJoinSubstitution([FindPackageShare("salmonn_node"), "config", "tiny.yaml"]),
        "Parameters of the node.",
    ),
    "shutdown_at_end": ("false", "Stop everything when the bag has been played."),
}


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in ARGUMENTS.items()
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("salmonn_node"), "launch", "salmonn.launch.py"])
        ),
        launch_arguments={"params_file": LaunchConfiguration("params_file"), "use_sim_time": "true"}.items(),
    )
    player = ExecuteProcess(
        cmd=[
            "ros2",
            "bag",
            "play",
            "--clock",
            "100",
            "--rate",
            LaunchConfiguration("rate"),
            LaunchConfiguration("bag"),
        ],
        output="screen",
    )
    ended = RegisterEventHandler(
        OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown(reason="the bag has ended"))]),
        condition=IfCondition(LaunchConfiguration("shutdown_at_end")),
    )
    return LaunchDescription(
        [*arguments, node, ended, TimerAction(period=LaunchConfiguration("start_after_s"), actions=[player])]
    )
