"""Play a bag through the running system: the node on simulated time, then the bag with /clock once it is active."""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import FindPackagePrefix, FindPackageShare

from launch import LaunchDescription

# The arguments of salmonn.launch.py may be given, too: checkpoint, cameras, image_transport, remap, pose and so on.
ARGUMENTS = {
    "bag": (None, "Bag to play: a folder of rosbag2, or an .mcap or .db3 file in it."),
    "rate": ("1.0", "How many times as fast as it was recorded."),
    "name": ("salmonn", "Name of the node."),
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
        launch_arguments={"use_sim_time": "true"}.items(),
    )
    # This player waits until the node hears every topic, so that the start of the bag is not lost.
    player = ExecuteProcess(
        cmd=[
            PathJoinSubstitution([FindPackagePrefix("salmonn_node"), "lib", "salmonn_node", "salmonn"]),
            "bag",
            "play",
            LaunchConfiguration("bag"),
            "--rate",
            LaunchConfiguration("rate"),
            "--meet",
            LaunchConfiguration("name"),
        ],
        output="screen",
    )
    active = RegisterEventHandler(OnStateTransition(goal_state="active", entities=[player], handle_once=True))
    ended = RegisterEventHandler(
        OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown(reason="the bag has ended"))]),
        condition=IfCondition(LaunchConfiguration("shutdown_at_end")),
    )
    return LaunchDescription([*arguments, active, ended, node])
