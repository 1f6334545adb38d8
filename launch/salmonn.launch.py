"""Start the memory node, configured and activated; `ros2 launch ... --show-args` explains each argument."""

import yaml
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

ARGUMENTS = {
    "name": ("salmonn", "Name of the node; its services and status topics lie under it."),
    "namespace": ("", "Namespace of the node and of its input topics."),
    "params_file": (
        PathJoinSubstitution([FindPackageShare("salmonn_node"), "config", "tiny.yaml"]),
        "Parameters of the node; the top-level key must be the node's name or /**.",
    ),
    "use_sim_time": ("false", "Take the time from /clock, as with a bag or a simulation."),
    "autostart": ("true", "Configure and activate the node at once; false leaves that to a lifecycle manager."),
    "log_level": ("info", "debug, info, warn or error."),
    "camera_image": ("camera/image", "Topic of the camera named camera, with image_transport raw (sensor_msgs/Image)."),
    "camera_image_compressed": ("camera/image/compressed", "Its topic with image_transport compressed."),
    "camera_image_video": ("camera/image/video", "Its topic with image_transport video."),
    "camera_info": ("camera/camera_info", "Its CameraInfo topic."),
    "microphone_audio": ("microphone/audio", "Topic of the microphone named microphone."),
    "microphone_audio_info": ("microphone/audio_info", "Its AudioInfo topic (audio_common of ros-drivers only)."),
    "pose": ("pose", "Topic of the robot's pose; the parameter pose_type names its type."),
    "remap": ("", "More remappings FROM:=TO, with commas, for example front/image:=/cam0/image_raw."),
}
# These override params_file where they are given.
OVERRIDES = {
    "checkpoint": "Weights: tiny, a name as for `salmonn checkpoint get`, or a folder.",
    "device": "auto, cpu or cuda.",
    "image_transport": "raw, compressed or video.",
    "cameras": "Names of the cameras, for example '[front, rear]'; each listens to NAME/image.",
    "microphones": "Names of the microphones, for example '[mic]'; each listens to NAME/audio.",
}
REMAPPINGS = {
    "camera/image": "camera_image",
    "camera/image/compressed": "camera_image_compressed",
    "camera/image/video": "camera_image_video",
    "camera/camera_info": "camera_info",
    "microphone/audio": "microphone_audio",
    "microphone/audio_info": "microphone_audio_info",
    "pose": "pose",
}


def start(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    more = [pair.partition(":=")[::2] for pair in LaunchConfiguration("remap").perform(context).split(",") if pair]
    if not all(source and target for source, target in more):
        raise ValueError("remap: expected FROM:=TO pairs with commas between them")
    node = LifecycleNode(
        package="salmonn_node",
        executable="memory_node",
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {"use_sim_time": LaunchConfiguration("use_sim_time")},
            {name: yaml.safe_load(text) for name, text in given.items() if text},
        ],
        remappings=[(topic, LaunchConfiguration(argument)) for topic, argument in REMAPPINGS.items()] + more,
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        # A snapshot on the way out may take longer than launch's 5 s.
        sigterm_timeout="20",
        sigkill_timeout="20",
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configure = EmitEvent(
        event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_CONFIGURE),
        condition=autostart,
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[
                LogInfo(msg="configured, activating"),
                EmitEvent(
                    event=ChangeState(
                        lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_ACTIVATE
                    )
                ),
            ],
        ),
        condition=autostart,
    )
    # The handler must be there before the event that it waits for.
    return [activate, node, configure]


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    overrides = [
        DeclareLaunchArgument(name, default_value="", description=f"{text} Overrides params_file.")
        for name, text in OVERRIDES.items()
    ]
    return LaunchDescription([*arguments, *overrides, OpaqueFunction(function=start)])
