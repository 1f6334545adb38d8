"""The real page in a process of its own, and Debian's Chromium, which looks at it without a screen."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


def wait(done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait for something to become true; gives it. An element that the page replaced meanwhile is looked for again."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(StaleElementReferenceException):
            if found := done():
                return found
        time.sleep(0.1)
    raise AssertionError(f"in {patience_s:.0f} s this did not happen: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PageProcess:
    """`salmonn ui` as a user runs it.

    Args:
        log: file for what it prints.
        arguments: of the command.
        environment: changes to the environment.
    """

    def __init__(self, log: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.port, self.log = free_port(), log
        command = [sys.executable, "-m", "salmonn_node.cli", "ui", "--port", str(self.port), *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        env.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI would take it for a test of its own
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=env)
        wait(self._up, f"the page answers; it said: {self.log.read_text()}")

    def _up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.status() > 0

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def status(self, path: str = "", **headers: str) -> int:
        """Status of one request without a browser; 0 when nobody listens."""
        request = urllib.request.Request(self.url + path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


class Browser:
    """One browser window.

    Args:
        width: of the window, pixels.
        dark: whether the system asks for dark colours.
    """

    def __init__(self, width: int = 1200, dark: bool = False) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        assert chromium, "this test needs chromium"
        assert driver, "this test needs chromium-driver"
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", f"--window-size={width},1200",
        ):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        screen = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})

    def open(self, url: str) -> None:
        self.driver.get(url)
        wait(lambda: "Connected" in self.text() or "connected" in self.text(), "the page is alive")

    def close(self) -> None:
        self.driver.quit()

    def text(self, css: str = "body") -> str:
        """All text of the first element, hidden text too."""
        return str(self.driver.execute_script(f"return document.querySelector({json.dumps(css)})?.textContent ?? ''"))

    def all(self, css: str) -> list[WebElement]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def shown(self, css: str) -> list[WebElement]:
        return [element for element in self.all(css) if element.is_displayed()]

    def press(self, words: str, css: str = "button, .q-tab, .q-expansion-item .q-item") -> None:
        """Press what shows these words."""

        def found() -> WebElement | None:
            return next((e for e in self.all(css) if words in (e.get_attribute("textContent") or "")), None)

        def pressed() -> bool:
            element = found()
            if element is not None:
                self.driver.execute_script("arguments[0].click()", element)
            return element is not None

        wait(pressed, f"there is {words!r} to press")

    def type(self, label: str, text: str, *keys: str) -> None:
        """Type into the field with this label, in place of what it holds."""

        def found() -> WebElement | None:
            return next((e for e in self.shown("input") if e.get_attribute("aria-label") == label), None)

        def typed() -> bool:
            field = found()
            if field is not None:
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(text, *keys)
            return field is not None

        wait(typed, f"there is a field {label!r}")

    def choose(self, label: str, option: str) -> None:
        """Open the list with this label and choose the option that shows these words."""

        def found() -> WebElement | None:
            return next((e for e in self.shown(".q-select") if label in (e.get_attribute("textContent") or "")), None)

        def listed() -> WebElement | None:
            return next((e for e in self.shown(".q-menu .q-item") if e.text == option), None)

        wait(found, f"there is a list {label!r}").click()
        wait(listed, f"{option!r} is in the list").click()

    def ask(self, question: str) -> None:
        self.type("Your question", question, Keys.ENTER)

    def answer(self, count: int = 1) -> str:
        """The text of the newest answer, once there are so many."""
        wait(lambda: len(self.all(".answer")) >= count, f"there are {count} answers; the page says: {self.text()}")
        return self.text(".answer")

    def console(self) -> list[str]:
        """Warnings and errors that the page wrote since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def hosts(self) -> set[str]:
        """Hosts of all requests since the last call, websockets too."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(parameters["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                found.add(parameters["url"])
        return {urlsplit(url).netloc for url in found if urlsplit(url).scheme in ("http", "https", "ws", "wss")}
