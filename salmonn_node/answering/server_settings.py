"""Settings of a reader outside the network, an OpenAI-compatible server: the source of parameters and flags."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from salmonn_node.model.setting import check_settings, setting

INTERNAL, SERVER = "internal", "server"
READERS = (INTERNAL, SERVER)
# A key is one line; a longer file is something else.
MOST_KEY_BYTES = 4096


@dataclass(frozen=True)
class ServerSettings:
    """Who answers, and how to reach it. The metadata of each field holds its description, choices and closed range.

    Attributes:
        reader: "internal" is the network of the checkpoint; "server" sends log and pictures to a server.
        server_url: address of the API, with its version: http://127.0.0.1:11434/v1.
        server_model: name of the model there.
        server_key_file: file whose first line is the API key; "" sends none.
        server_allow_remote: allows a server that is not on this machine.
        server_pictures: most pictures of an answer.
        server_choice: "log" in two passes; "uniform" and "last" only look at pictures chosen without the question.
        server_timeout_s: longest wait for one reply, seconds.
        server_log_chars: longest log that is sent, characters.
        server_transcriber_model: name of a model there that writes down what is said; "" leaves sounds without words.
        server_caption_period_s: shortest time between two captions, seconds; 0 writes none.
    """

    reader: str = setting(
        INTERNAL,
        "Who answers. internal: the network; server: an OpenAI-compatible server, which is sent log and pictures.",
        choices=READERS,
    )
    server_url: str = setting("http://127.0.0.1:11434/v1", "Address of the server's API, with its version.")
    server_model: str = setting("", "Name of the model at the server.")
    server_key_file: str = setting("", "File whose first line is the API key; empty: no key is sent.")
    server_allow_remote: bool = setting(
        False, "Allow a server_url that is not on this machine. Pictures of the robot then leave it."
    )
    server_pictures: int = setting(4, "Most pictures that are sent for an answer.", low=1, high=32)
    server_choice: str = setting(
        "log",
        "How pictures are chosen. log: in two passes, the log first; uniform, last: without the question, to compare.",
        choices=("log", "uniform", "last"),
    )
    server_timeout_s: float = setting(
        60.0, "Seconds to wait for one reply of the server; a question's deadline may be earlier.", low=0.1, high=3600.0
    )
    server_log_chars: int = setting(
        40_000, "Most characters of the log that are sent; a longer log is narrowed.", low=1_000, high=4_000_000
    )
    server_transcriber_model: str = setting(
        "", "Name of a model at the server that writes down what is said in sounds; empty: no sound is sent."
    )
    server_caption_period_s: float = setting(
        2.0, "Shortest time in seconds between two captions by the server in idle time; 0: none.", low=0.0, high=3600.0
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def outside(self) -> bool:
        """Whether a server answers."""
        return self.reader == SERVER

    def check(self) -> None:
        """Check what a server needs. Nothing is connected here.

        Raises:
            ValueError: the address is malformed or not allowed, the model has no name, or the key cannot be read.
        """
        url = urlsplit(self.server_url)
        try:
            host, _ = url.hostname, url.port
        except ValueError as error:
            raise ValueError(f"server_url: {self.server_url!r} is no address: {error}") from None
        if url.scheme not in ("http", "https") or not host:
            raise ValueError(f"server_url: expected http://HOST:PORT/v1, got {self.server_url!r}")
        if url.username or url.password or url.query:
            raise ValueError("server_url: it must not carry a user, a password or a query; use server_key_file")
        if not is_loopback(host) and not self.server_allow_remote:
            raise ValueError(
                f"server_url: {host} is not this machine, and pictures would leave it; set server_allow_remote to allow"
            )
        if not self.server_model:
            raise ValueError("server_model: reader is server, and the model has no name")
        self.key()

    def key(self) -> str:
        """The API key, "" without a file. Raises ValueError when the file holds none."""
        if not self.server_key_file:
            return ""
        path = Path(self.server_key_file).expanduser()
        try:
            with path.open("rb") as file:
                lines = file.read(MOST_KEY_BYTES + 1).decode("ascii").split()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ValueError(f"server_key_file: {path} cannot be read: {why}") from None
        if len(lines) != 1 or len(lines[0]) > MOST_KEY_BYTES:
            raise ValueError(f"server_key_file: {path} must hold one key on one line")
        return lines[0]

    @property
    def where(self) -> str:
        """Where pictures go, in words, for logs and status; it never holds the key."""
        if not self.outside:
            return "internal: pictures stay in this process"
        url = urlsplit(self.server_url)
        place = "this machine" if is_loopback(url.hostname or "") else "ANOTHER MACHINE"
        what = "log, pictures and sound" if self.server_transcriber_model else "log and pictures"
        return f"server: {what} go to {self.server_url} ({place}), model {self.server_model}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own. No name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
