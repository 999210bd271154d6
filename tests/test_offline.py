"""The built book, opened from disk in a headless Chromium with the network off.

Every page must render, equations included, with no console error, and no request may leave the
machine. `make check-html` runs this after `make book`, and keeps screenshots (wide, phone, dark)
in _build/screens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from tornado.websocket import websocket_connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tornado.websocket import WebSocketClientConnection

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
SCREENS = os.environ.get("DIRLEARN_SCREENS")
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])),
    None,
)
# `make book` touches .built when it ends, `make` touches .executed when package or data changed.
BUILT = ROOT / "_build" / ".built"
SOURCES = [ROOT / "_build" / ".executed", ROOT / "_config.yml", ROOT / "_toc.yml"]


def is_current() -> bool:
    if not (HTML / "index.html").exists() or not BUILT.exists():
        return False
    sources = [path for path in [*SOURCES, *(ROOT / "book").rglob("*")] if path.is_file()]
    return all(
        path.stat().st_mtime <= BUILT.stat().st_mtime
        for path in sources
        if "__pycache__" not in path.parts
    )


pytestmark = [
    pytest.mark.skipif(
        not is_current(), reason="no up-to-date book in _build/html: run `make book` first"
    ),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium or Chrome on this machine to open the book in"
    ),
]

# Pages of the book; one that only sends the reader on has no article.
PAGES = sorted(
    p for p in HTML.rglob("*.html") if "_static" not in p.parts and "<article" in p.read_text()
)

# Resolves when the page and every equation on it have been drawn.
DRAWN = """new Promise(done => {
  const typeset = () => (window.MathJax?.startup?.promise ?? Promise.resolve())
    .then(() => setTimeout(done, 150));
  document.readyState === "complete" ? typeset() : addEventListener("load", typeset);
})"""
FOUND = """({
  heading: document.querySelector("article h1")?.innerText ?? "",
  equations: document.querySelectorAll("main .math").length,
  drawn: document.querySelectorAll("main .math mjx-container").length,
  mistaken: [...document.querySelectorAll("mjx-merror")].map(e => e.title || e.innerText),
  raw: [...document.querySelectorAll("main p")].map(p => p.innerText)
    .filter(text => /\\$\\$|\\\\begin\\{/.test(text)),
  broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  unnamed: [...document.images].filter(i => !i.alt).map(i => i.src),
  uncaptioned: [...document.querySelectorAll("main .cell_output img")]
    .filter(i => !i.closest("figure")?.querySelector("figcaption")).map(i => i.src),
})"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Browser:
    """One tab of a headless Chromium, driven over its debugging socket."""

    def __init__(self, profile: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.events: list[dict[str, Any]] = []
        self.count = 0
        self.socket: WebSocketClientConnection | None = None
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # the network is off
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            [CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.port_file = profile / "DevToolsActivePort"

    def connect(self) -> None:
        with urlopen(f"http://127.0.0.1:{self._port()}/json") as answer:
            address = next(
                t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page"
            )
        self.socket = self.loop.run_until_complete(self._connect(address))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", **off)

    async def _connect(self, address: str) -> WebSocketClientConnection:
        return await websocket_connect(address, max_message_size=2**28)

    def _port(self) -> str:
        for _ in range(200):
            if self.port_file.exists() and "\n" in (text := self.port_file.read_text()):
                return text.split("\n")[0]
            time.sleep(0.1)
        raise TimeoutError(
            f"Chromium did not open its debugging port ({self.port_file} is missing)"
        )

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command; what happens before its answer is kept in `events`."""
        return self.loop.run_until_complete(asyncio.wait_for(self._send(method, params), 60))

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        await self.socket.write_message(
            json.dumps({"id": self.count, "method": method, "params": params})
        )
        while True:
            text = await self.socket.read_message()
            assert text is not None, f"Chromium closed its socket at {method}"
            message = json.loads(text)
            if message.get("id") == self.count:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression: str) -> Any:
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(
        self, page: Path, *, width: int = 1400, height: int = 1000, dark: bool = False
    ) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        self.evaluate(DRAWN)

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since the page was opened."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:600])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in (
                "error",
                "warning",
                "assert",
            ):
                found.append(json.dumps(params["args"])[:600])
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in (
                "error",
                "warning",
            ):
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return found

    def requests(self) -> list[str]:
        return [
            e["params"]["request"]["url"]
            for e in self.events
            if e["method"] == "Network.requestWillBeSent"
        ]

    def photograph(self, path: Path) -> None:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": 0,
            "width": size["width"],
            "height": min(size["height"], 12_000),
            "scale": 1,
        }
        image = self.send(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(image["data"]))

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.loop.run_until_complete(asyncio.sleep(0.1))
        self.process.terminate()
        self.process.wait(timeout=20)
        self.loop.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        browser.connect()
        yield browser
    finally:
        browser.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(HTML)))
def test_page_reads_from_disk(browser: Browser, page: Path) -> None:
    browser.open(page)
    found = browser.evaluate(FOUND)
    assert browser.complaints() == []
    assert [
        url for url in browser.requests() if not url.startswith(("file:", "data:", "blob:"))
    ] == []
    assert found["heading"]
    assert found["drawn"] == found["equations"]
    assert found["mistaken"] == []
    assert found["raw"] == []
    assert found["broken"] == []
    assert found["unnamed"] == []
    assert found["uncaptioned"] == []
    name = "-".join(page.relative_to(HTML).with_suffix("").parts)
    if SCREENS:
        browser.photograph(ROOT / SCREENS / f"{name}-wide.png")
    browser.open(page, width=390, height=844)
    assert browser.evaluate(OVERFLOW) <= 1, "on a phone, the page scrolls sideways"
    if SCREENS:
        browser.photograph(ROOT / SCREENS / f"{name}-phone.png")
        browser.open(page, dark=True)
        assert browser.evaluate("document.documentElement.dataset.theme") == "dark"
        browser.photograph(ROOT / SCREENS / f"{name}-dark.png")
