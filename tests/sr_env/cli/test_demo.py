"""The page: mistakes are one message, and nothing else is read or asked.

Those in a browser skip without ``apt-get install chromium chromium-driver`` and ``pip install selenium gradio``.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

from sr_env.cli.demo import Settings, build_page, serving
from sr_env.cli.demo_session import BLEND, Studio
from sr_env.utils.checks import UsageError


@pytest.fixture
def photo(random_photos: list[np.ndarray], tmp_path: Path) -> Path:
    Image.fromarray(random_photos[0][:40, :52]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_wrong_settings() -> None:
    with pytest.raises(UsageError, match="--max-upload 0"), serving(Settings(max_upload=0)):
        pass
    with pytest.raises(UsageError, match="--port 70000: give 1 to 65535"), serving(Settings(port=70000)):
        pass
    for host in ("http://a.example", "a.example:80", "*", ""):
        with pytest.raises(UsageError, match="give names without scheme"), serving(Settings(hosts=(host,))):
            pass


# ----------------------------------------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def address(tiny_renderer: Path, textures: tuple[Path, Path]) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    with serving(Settings(model=str(tiny_renderer), device="cpu", max_pixels=100_000, max_upload=1)) as url:
        yield url


def ask(address: str, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request(method, path, body, {"Content-Type": kind} if kind else {})
    response = connection.getresponse()
    return response.status, response.read(), response.headers


def upload(address: str, name: str, content: bytes) -> tuple[int, bytes]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--x--\r\n"
    return ask(address, "POST", "/gradio_api/upload", body, "multipart/form-data; boundary=x")[:2]


def submit(address: str, session: str, target: str, data: list[Any]) -> dict[str, Any]:
    """Run the event of the part with an element id, as the browser would, and wait for its end."""
    config = json.loads(ask(address, "GET", "/config")[1])
    part = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == target)
    number = next(d["id"] for d in config["dependencies"] if [part, "click"] in [list(t) for t in d["targets"]])
    body = {"data": data, "fn_index": number, "session_hash": session, "trigger_id": part}
    status, answer, _ = ask(address, "POST", "/gradio_api/queue/join", json.dumps(body).encode(), "application/json")
    assert status == 200, answer
    stream = ask(address, "GET", f"/gradio_api/queue/data?session_hash={session}")[1].decode()
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    return {"events": events, "end": next(e for e in events if e["msg"] == "process_completed")}


def test_no_file_outside_is_served(address: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("do not read")
    for path in (secret, Path(__file__), Path("/etc/passwd"), Path("README.md")):
        status, body, _ = ask(address, "GET", f"/gradio_api/file={quote(str(path))}")
        assert status in (400, 403, 404), path
        assert b"do not read" not in body
    status, body = upload(address, "photo.png", b"content")
    assert status == 200
    uploaded = json.loads(body)[0]
    assert ask(address, "GET", f"/gradio_api/file={quote(uploaded)}")[1] == b"content"
    up = "/../" * 8
    assert ask(address, "GET", f"/gradio_api/file={quote(uploaded + up)}etc/passwd")[0] in (400, 403, 404)


def test_no_file_outside_is_opened(address: str, tiny_renderer: Path, photo: Path) -> None:
    data = {"path": str(photo), "meta": {"_type": "gradio.FileData"}}
    told = submit(address, "outside", "run", [data, None, str(tiny_renderer), 1.0, 1.0])
    assert not told["end"]["success"]
    assert "url" not in json.dumps(told["end"]["output"].get("data", ""))  # no picture came back


def test_the_page_itself_opens_only_what_was_uploaded(
    tiny_renderer: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where Gradio, which looks first, would let a path through."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    folder, opened = tmp_path / "uploads", list[Path]()
    inside = folder / "photo.png"
    folder.mkdir()
    inside.write_bytes(photo.read_bytes())
    (folder / "link.png").symlink_to(photo)
    studio = Studio(str(tiny_renderer), device="cpu")
    page = build_page(studio, [(photo, photo)], folder)

    def remember(source: Path, truth: Path | None, *settings: Any) -> None:
        opened.extend(path for path in (source, truth) if path is not None)
        raise UsageError("opened")

    monkeypatch.setattr(studio, "open", remember)
    run = next(event.fn for event in page.fns.values() if event.fn.__name__ == "on_open")
    outside = [photo, folder / "link.png", folder / ".." / "photo.png", Path("/etc/passwd"), Path("README.md")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in outside:
            run({"path": str(path)}, None, str(tiny_renderer), 0.5, 1.0)
            run({"path": str(inside)}, {"path": str(path)}, str(tiny_renderer), 0.5, 1.0)
        for sent in (str(photo), {"path": None}, {"path": [str(photo)]}, {"url": "http://evil.example/a.png"}, 3):
            run(sent, None, str(tiny_renderer), 0.5, 1.0)
        assert opened == []
        run({"path": str(inside)}, None, str(tiny_renderer), 0.5, 1.0)
    assert opened == [inside]


def test_uploads_run_and_wait_for_each_other(address: str, tiny_renderer: Path, photo: Path) -> None:
    path = json.loads(upload(address, "photo.png", photo.read_bytes())[1])[0]
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    with ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(submit, address, f"user{i}", "run", [data, None, str(tiny_renderer), 1.0, 1.0])
            for i in range(3)
        ]
        ends = [future.result()["end"] for future in waiting]
    for end in ends:
        assert end["success"]
        assert "Predicted kernel" in json.dumps(end["output"]["data"])


def test_too_large_an_upload_is_refused(address: str) -> None:
    status, body = upload(address, "large.png", bytes(1_200_000))
    assert status == 413
    assert b"exceeded" in body


def test_the_page_allows_nothing_from_outside(address: str) -> None:
    headers = ask(address, "GET", "/")[2]
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy
    assert urlsplit(address).hostname == "127.0.0.1"


def test_foreign_hosts_and_origins_get_nothing(address: str) -> None:
    """Preflights neither, which Gradio answers itself."""
    place = urlsplit(address).netloc
    for path, method in (("/", "GET"), ("/gradio_api/upload", "POST"), ("/gradio_api/upload", "OPTIONS")):
        for host, origin, allowed in (
            (place, f"http://{place}", True),
            (place, "http://evil.example", False),
            ("evil.example", "http://evil.example", False),
        ):
            connection = http.client.HTTPConnection(place, timeout=20)
            headers = {"Host": host, "Origin": origin, "Access-Control-Request-Method": "POST"}
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            assert (answer.status != 403) == allowed, (path, method, host, origin)
            assert ("access-control-allow-origin" in answer.headers) == allowed


def test_the_folder_goes_with_the_server(tiny_renderer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with serving(Settings(model=str(tiny_renderer), device="cpu")) as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        path = Path(json.loads(upload(url, "photo.png", b"content")[1])[0])
        assert path.is_relative_to(folder)
        assert path.exists()
        port = urlsplit(url).port
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "before"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert taken.getsockname()[1] != port
        settings = Settings(model=str(tiny_renderer), device="cpu", port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=rf"port {settings.port} is taken: give another --port"), serving(settings):
            pass


# ---------------------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium: pip install selenium")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-dev-shm-usage"),
        *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1300,1700"),
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.1)
    return value


class Page:
    """The page in the browser."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        until(lambda: self.find("#text") and "Predicted kernel" in self.text)

    def find(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    @property
    def text(self) -> str:
        return str(self.browser.execute_script("return document.querySelector('#text').innerText"))

    @property
    def pictures(self) -> list[str]:
        script = "return [...document.querySelectorAll('#compare img')].map(image => image.src)"
        return list(self.browser.execute_script(script))

    @property
    def messages(self) -> list[str]:
        script = "return [...document.querySelectorAll('[data-testid=toast-body]')].map(body => body.innerText)"
        return list(self.browser.execute_script(script))

    def put(self, where: str, path: Path) -> None:
        """Take away what is there and upload a file."""
        for button in self.find(f"{where} button[aria-label='Remove Image']"):
            self.browser.execute_script("arguments[0].click()", button)
        until(lambda: self.find(f"{where} input[type=file]"))[0].send_keys(str(path))
        until(lambda: self.find(f"{where} button[aria-label='Remove Image']"))

    def choose(self, model: str) -> None:
        """Take a model from the list."""
        entry = self.find("#model input")[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", entry)
        entry.click()
        entry.send_keys("\ue009a\ue000", model, "\ue007")  # control-a; enter

    def press(self, where: str) -> None:
        button = self.find(where)[0]
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Page:
    return Page(browser, address)  # once: loading is the slow part


def test_first_load_shows_an_example_and_asks_nobody_else(page: Page, address: str) -> None:
    assert len(until(lambda: page.pictures)) == 2
    assert page.find("#kernel img")
    assert page.find("#bars img")  # its ground truth is there
    urls = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = {urlsplit(url["params"]["request"]["url"]) for url in urls if url["method"] == "Network.requestWillBeSent"}
    outside = {url.netloc for url in asked if url.scheme in ("http", "https", "ws", "wss")}
    assert outside == {urlsplit(address).netloc}


def test_the_divider_answers_to_keys(page: Page) -> None:
    until(lambda: page.find("#compare [role=slider]"))
    divider = page.find("#compare [role=slider]")[0]

    def at() -> float:
        script = "return document.querySelector('#compare img.fixed').style.clipPath.match(/([\\d.]+)%\\)/)[1]"
        return float(page.browser.execute_script(script))

    until(lambda: at() == pytest.approx(50, abs=1))
    assert (divider.get_attribute("tabindex"), divider.get_attribute("aria-valuenow")) == ("0", "50")
    for key, condition in (
        ("\ue014", lambda: at() > 51),  # arrow to the right
        ("\ue011", lambda: at() <= 1),  # Home
        ("\ue012", lambda: at() <= 1),  # arrow to the left: no further
        ("\ue010", lambda: at() >= 99),  # End
        ("\ue012", lambda: 90 < at() < 99),
    ):
        divider.send_keys(key)
        until(condition, 20)
    assert divider.get_attribute("aria-valuenow") == "98"
    assert page.browser.execute_script("return document.activeElement.getAttribute('role')") == "slider"
    assert page.browser.execute_script("return getComputedStyle(document.activeElement).outlineWidth") == "3px"
    divider.send_keys("\ue011")


def test_upload_run_and_move_the_kernel(page: Page, photo: Path) -> None:
    before = page.pictures
    page.put("#source", photo)
    for button in page.find("#truth button[aria-label='Remove Image']"):
        page.browser.execute_script("arguments[0].click()", button)
    page.press("#run")
    until(lambda: page.pictures and page.pictures != before)
    until(lambda: not page.find("#bars img"))  # no ground truth, no metrics
    predicted = page.pictures
    assert page.messages == []
    slider = page.find("#width input[type=range]")[0]
    for _ in range(4):
        slider.send_keys("\ue014")  # arrow to the right
    until(lambda: "In use:" in page.text)
    until(lambda: page.pictures[1] != predicted[1])
    assert page.pictures[0] == predicted[0]
    number = page.find("#width input[type=number]")[0]
    number.send_keys("\ue009a\ue000", "3.5", "\ue004")  # control-a; tab
    until(lambda: "In use: 3.5" in page.text or "In use: 3.49" in page.text)
    page.press("#reset")
    until(lambda: "In use" not in page.text)
    until(lambda: page.pictures == predicted)
    page.press("#whole")
    until(lambda: "photo_x4.png" in page.browser.page_source)
    assert page.messages == []


def test_the_texture_slider_comes_with_its_model(page: Page, tiny_renderer: Path) -> None:
    assert not page.find("#texture input")
    before = page.pictures
    page.choose(BLEND)
    textured = until(lambda: page.find("#texture input[type=range]") and page.pictures != before and page.pictures)
    slider = page.find("#texture input[type=range]")[0]
    for _ in range(8):
        slider.send_keys("\ue012")  # arrow to the left
    between = until(lambda: page.pictures[1] != textured[1] and page.pictures)
    assert between[0] == textured[0]
    number = page.find("#texture input[type=number]")[0]
    assert float(number.get_attribute("value")) == pytest.approx(0.6)
    number.send_keys("\ue009a\ue000", "0", "\ue004")  # control-a; tab
    until(lambda: page.pictures[1] not in (between[1], textured[1]))
    page.choose(str(tiny_renderer))
    until(lambda: not page.find("#texture input"))
    until(lambda: page.pictures and page.pictures[1] != textured[1])
    assert page.messages == []


def test_examples_run_when_clicked(page: Page) -> None:
    before = page.pictures
    row = page.find("#examples tbody tr")[1]
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
    row.click()
    until(lambda: page.pictures and page.pictures != before)
    until(lambda: page.find("#bars img"))
    assert page.messages == []


def test_mistakes_are_one_message_in_the_place_of_pictures(page: Page, tmp_path: Path) -> None:
    until(lambda: page.pictures and page.find("#kernel img"))
    path = tmp_path / "a.png"
    for size, message in (
        (None, "cannot read the image 'a.png': not a picture in an accepted format"),
        ((1, 1), "'a.png' has 1x1 pixels: give 8 or more on each side"),
        ((400, 300), "'a.png' has 400x300 pixels, over the limit of 0.1 megapixels: crop it"),
    ):
        if size is None:
            path.write_text("<b>not</b> a picture")
        else:
            Image.new("RGB", size).save(path)
        page.put("#source", path)
        page.press("#run")
        until(lambda: "".join(page.messages))
        assert len(page.messages) == 1
        assert message in page.messages[0]
        until(lambda: not page.pictures)  # nothing of an earlier photograph stays
        assert message in page.text
        assert not page.find("#kernel img")
        assert not page.find("#bars img")
        page.press("[data-testid=toast-close]")
        until(lambda: not page.messages)
