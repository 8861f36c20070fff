"""A headless Chromium that opens pages of a disk, spoken to by its DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STARTS_WITHIN = 60.0
"""Seconds."""


def chromium() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of a browser, and the errors that it has reported."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.errors: list[str] = []
        self._numbers = itertools.count(1)
        self._loaded = False

    async def call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        """The response to one command of the protocol."""
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        kind, content = message.get("method"), message.get("params", {})
        if kind == "Page.loadEventFired":
            self._loaded = True
        if kind == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(content["entry"]["text"])
        if kind == "Runtime.exceptionThrown":
            self.errors.append(content["exceptionDetails"]["text"])

    async def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Show a page in a window of some width, and wait until it is loaded."""
        for domain in ("Page", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        await self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._note(await self.socket.receive_json())

    async def value(self, script: str) -> Any:
        """What an expression yields on the page."""
        response = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in response, response
        return response["result"].get("value")

    async def screenshot(self, whole: bool = True) -> bytes:
        """The page as PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    async def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode((await self.call("Page.printToPDF", printBackground=True))["data"])


@contextlib.asynccontextmanager
async def browser_tab():
    """A tab of a new browser, which ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                str(chromium()), "--headless=new", "--no-sandbox", "--disable-gpu",
                "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0",
                f"--user-data-dir={profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = await _port(Path(profile, "DevToolsActivePort"))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    pages = [tab for tab in await response.json() if tab["type"] == "page"]
                address = pages[0]["webSocketDebuggerUrl"]
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    yield Tab(socket)
        finally:
            process.terminate()
            process.wait()


async def _port(file: Path) -> int:
    """The port that the browser listens at, once it does."""
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if file.exists() and (lines := file.read_text().split()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the browser did not start within {STARTS_WITHIN} s")
