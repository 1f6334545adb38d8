"""The page in a real browser beside a real node: ask, cancel, watch, forget, save, load, tokens, a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ros.harness import NodeProcess, Robot
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from salmonn_node.cli import main
from salmonn_node.client import Memory
from salmonn_node.live.demo_recording import BAG
from salmonn_node.stream.observations import SECOND_NS

from .browsing import PATIENCE_S, Browser, PageProcess, wait

pytestmark = [pytest.mark.full, pytest.mark.ros, pytest.mark.timeout(900)]
EVIL = "say <img src=x onerror=alert(1)> </script><b>"


def node_at(folder: Path) -> NodeProcess:
    parameters = {
        "use_sim_time": "true", "cameras": "[camera]", "microphones": "[microphone]", "image_reliability": "reliable",
        "image_depth": "50", "audio_type": "salmonn_interfaces/msg/AudioChunk", "pose_type": "odometry",
        "memory_directory": str(folder / "memories"), "max_new_tokens": "2", "threads": "1",
    }  # fmt: skip
    return NodeProcess(folder / "node.log", parameters)


def see(robot: Robot, images: int) -> int:
    """The robot sees so many images a second apart, and drives."""
    for _ in range(images):
        stamp = robot.step()
        for near in (-50_000_000, 50_000_000):
            robot.poses.publish(robot.odometry(stamp + near, (stamp // SECOND_NS) % 100 * 0.1))
        robot.images.publish(robot.image(stamp))
    return stamp


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def node(robot: Robot, folder: Path) -> Iterator[NodeProcess]:
    process = node_at(folder)
    with Memory(robot.node) as memory:
        memory.startup(PATIENCE_S)
    robot.wait(lambda: robot.images.get_subscription_count() > 0, PATIENCE_S, "the node subscribes")
    for _ in range(3):
        see(robot, 10)
        taken = robot.count("memory", "frames")
        robot.wait(lambda taken=taken: robot.count("memory", "frames") > taken, PATIENCE_S, "images are taken")
    yield process
    process.end()


@pytest.fixture(scope="module")
def page(node: NodeProcess, folder: Path) -> Iterator[PageProcess]:
    process = PageProcess(folder / "page.log")
    yield process
    process.end()


@pytest.fixture
def browser(page: PageProcess) -> Iterator[Browser]:
    browser = Browser()
    browser.open(page.url)
    yield browser
    hosts, console = browser.hosts(), browser.console()
    browser.close()
    assert hosts == {f"localhost:{page.port}"}, "a request left this machine"
    assert not console


def test_a_question_gets_its_card_and_no_text_becomes_markup(browser: Browser):
    browser.ask("point 3")
    text = browser.answer()
    for words in ("point 3", "Answered", "Evidence", "camera camera", "Took"):
        assert words in text
    assert browser.all(".answer .picture img")
    browser.ask(EVIL)
    assert EVIL in browser.answer(2)
    assert not browser.all(".answer img[onerror]")
    browser.press("Copy as JSON")


def test_text_comes_as_it_is_written_and_a_question_can_be_canceled(browser: Browser):
    browser.ask("say " + "word " * 40)
    wait(lambda: "wordword" in browser.text(".partial").replace(" ", ""), "partial text shows")
    browser.answer()
    browser.ask("hang")
    wait(lambda: browser.shown(".ask button") and len(browser.shown(".ask button")) > 1, "Cancel shows")
    browser.press("Cancel", ".ask button")
    assert "CANCELED" in browser.answer(2)


def test_a_window_is_dragged_shown_and_asked_within(browser: Browser):
    browser.press("Timeline", ".q-tab")
    plot = wait(lambda: browser.shown(".timeline .plot"), "the timeline shows")[0]
    width = plot.size["width"]
    drag = ActionChains(browser.driver).move_to_element_with_offset(plot, -width // 4, 0).click_and_hold()
    drag.move_by_offset(width // 4, 0).release().perform()
    wait(lambda: "Chosen:" in browser.text(), "the window is chosen")
    assert browser.all(".timeline .chosen")

    plot = browser.shown(".timeline .plot")[0]
    plot.click()
    wait(lambda: browser.all(".evidence.one img"), "the moment shows its picture")
    ActionChains(browser.driver).click(plot).send_keys(Keys.ARROW_LEFT, Keys.ENTER).perform()

    browser.press("Ask within the window")
    browser.ask("point 2")
    assert "Answered" in browser.answer()
    assert "is read." in browser.text(".window")


def test_the_map_and_health_say_what_the_node_says(browser: Browser):
    browser.press("Map", ".q-tab")
    wait(lambda: browser.shown(".map .pin.robot"), "the map shows the robot")
    browser.press("Health", ".q-tab")
    for words in ("Memory", "Visual tokens", "camera", "Network"):
        wait(lambda words=words: words in browser.text(".panels"), words)


def test_a_watch_marks_when_it_became_true_and_another_is_canceled(browser: Browser, robot: Robot):
    browser.press("Watch", ".q-tab")
    browser.type("Tell me when", "after 2", Keys.ENTER)
    wait(lambda: "Watching" in browser.text(".watch"), "the watch runs")

    def became() -> bool:
        see(robot, 2)
        return "Became true" in browser.text(".watch")

    wait(became, "it became true")
    browser.type("Tell me when", "never", Keys.ENTER)
    wait(lambda: len(browser.all(".watch")) == 2, "a second watch runs")
    browser.press("Cancel", ".watch button")
    wait(lambda: "Ended" in browser.text(".watch"), "it ended")


def test_forgetting_says_what_is_lost_and_saving_can_be_left(browser: Browser, robot: Robot):
    browser.press("Keep and forget", ".q-tab")
    newest_s = robot.now_ns // SECOND_NS
    browser.type("From", str(newest_s - 5))
    browser.type("To", str(newest_s))
    browser.press("Forget this interval")
    wait(lambda: "Lost for good" in browser.text(".confirm"), "it says what will be lost")
    browser.press("Forget it", ".confirm button")
    wait(lambda: "evidence were forgotten" in browser.text(), "it is forgotten")
    browser.press("Save", ".card button")
    wait(lambda: "treat it as private" in browser.text(".confirm"), "it asks")
    browser.press("Leave it", ".confirm button")
    wait(lambda: not browser.all(".confirm"), "the question goes")


def test_a_memory_is_saved_under_a_name_and_loaded(browser: Browser):
    browser.press("Keep and forget", ".q-tab")
    browser.type("Name", "before_lunch")
    browser.press("Save", ".card button")
    wait(lambda: "Save as before_lunch?" in browser.text(".confirm"), "it asks")
    browser.press("Save", ".confirm button")
    wait(lambda: "Saved as before_lunch." in browser.text(), "it is saved")
    wait(lambda: not browser.all(".confirm"), "the question goes")
    browser.choose("Stored memory", "before_lunch")
    browser.press("Load", ".card button")
    wait(lambda: "saved under its own name first" in browser.text(".confirm"), "it says what it will do")
    browser.press("Load it", ".confirm button")
    wait(lambda: "Loaded; the memory is" in browser.text(), "it is loaded")
    browser.press("Ask", ".q-tab")
    browser.ask("point 3")
    assert "Answered" in browser.answer()


def test_a_phone_in_the_dark_needs_no_sideways_scrolling(page: PageProcess):
    browser = Browser(390, dark=True)
    try:
        browser.open(page.url)
        browser.ask("point 1")
        browser.answer()
        wide = browser.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390
        assert browser.all("body.body--dark")
        assert not browser.console()
    finally:
        browser.close()


def test_a_recording_plays_the_sound_of_its_evidence(folder: Path):
    bag = folder / "walk"
    # Knocking is heard at 46 s, and it is all that these seconds hold.
    assert main(["bag", "cut", str(BAG), str(bag), "--start", "44", "--duration", "6"]) == 0
    process = PageProcess(folder / "bag.log", "--bag", str(bag), environment={"XDG_CACHE_HOME": str(folder / "cache")})
    browser = Browser()
    try:
        browser.open(process.url)
        browser.ask("How many knocks were there when you last heard knocking?")
        assert "microphone mic" in browser.answer()
        browser.press("Play evidence", ".sound button")
        wait(lambda: browser.all(".sound audio[controls]") and browser.all("img.spectrogram"), "it can be played")
        about = "const a = document.querySelector('.sound audio'); return [a.duration, a.readyState, a.error?.message]"
        wait(lambda: browser.driver.execute_script(about)[1] > 0 or browser.driver.execute_script(about)[2], "it loads")
        duration_s, _, problem = browser.driver.execute_script(about)
        assert not problem
        assert 2.0 <= duration_s <= 10.0
        browser.press("Timeline", ".q-tab")
        wait(lambda: len(browser.shown(".timeline .plot")) == 2, "camera and microphone")
        assert "Watch" not in [tab.text for tab in browser.all(".q-tab")]
        assert browser.hosts() == {f"localhost:{process.port}"}
        assert not browser.console()
    finally:
        browser.close()
        process.end()


def test_other_sites_and_names_are_refused(page: PageProcess):
    assert page.status(Host=f"evil.example:{page.port}") == 403
    assert page.status(Origin="http://evil.example") == 403
    assert page.status() == 200


def test_a_page_elsewhere_wants_its_token_and_read_only_changes_nothing(node: NodeProcess, folder: Path):
    process = PageProcess(
        folder / "guarded.log", "--host", "0.0.0.0", "--read-only", environment={"SALMONN_UI_TOKEN": "of-this-test"}
    )
    browser = Browser()
    try:
        assert "?token=of-this-test" in process.log.read_text()
        assert process.status() == process.status("?token=wrong") == process.status("static/page.js") == 403
        browser.driver.get(process.url)
        assert "needs its token" in browser.text()
        browser.open(f"{process.url}?token=of-this-test")
        assert "token" not in browser.driver.current_url
        browser.ask("point 3")
        assert "Answered" in browser.answer()
        assert "Keep and forget" not in browser.text()
        assert browser.hosts() == {f"localhost:{process.port}"}
    finally:
        browser.close()
        process.end()


def test_the_node_goes_and_comes_back(browser: Browser, node: NodeProcess, robot: Robot, folder: Path):
    assert node.end() == 0
    wait(lambda: browser.text(".sign") == "Not connected", "the page says that the node is gone")
    assert "goes on as soon as the node is there" in browser.text(".gone")
    successor = node_at(folder)
    try:
        with Memory(robot.node) as memory:
            memory.startup(PATIENCE_S)
        wait(lambda: browser.text(".sign") == "Connected", "the page recovers by itself")
        browser.ask("point 3")
        assert "point 3" in browser.answer()
    finally:
        successor.end()
