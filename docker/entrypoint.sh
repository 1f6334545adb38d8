#!/bin/bash
# Run a command in the environment of the workspace, and become it, so that signals reach it.
set -e
source /ws/install/setup.bash
exec "$@"
