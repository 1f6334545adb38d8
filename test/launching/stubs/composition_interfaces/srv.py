"""The one service that launch_ros names in its annotations."""


class LoadNode:
    """Never called: no launch file here loads a component."""

    class Request:
        """Only its name is used."""
