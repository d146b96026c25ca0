"""A headless Chromium, driven through its DevTools protocol; nothing of it is installed by us."""

import asyncio
import itertools
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """One tab. `problems` holds what its console and the network complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.problems: list[str] = []
        self.requested: list[str] = []

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            elif told["method"] == "Runtime.exceptionThrown":
                self.problems.append(str(told["params"]["exceptionDetails"]))
            elif told["method"] == "Log.entryAdded":
                self.problems.append(told["params"]["entry"]["text"])
            elif told["method"] == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told: dict[str, Any] = await asyncio.wait_for(answer, 20)
        assert "error" not in told, told
        found: dict[str, Any] = told["result"]
        return found

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        base = url.split("#")[0]
        await self.until(
            f"document.readyState === 'complete' && location.href.startsWith('{base}')"
        )

    async def value(self, expression: str) -> Any:
        """What the page's JavaScript makes of `expression`."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str, *, within_s: float = 20) -> Any:
        """The first truthy value of `expression`."""
        last: object = None
        try:
            async with asyncio.timeout(within_s):
                while True:
                    last = await self.value(expression)
                    if last:
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise AssertionError(f"{expression}: {last!r} after {within_s} s on:\n{text}") from None

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """An empty tab of a fresh Chromium, which ends afterwards."""
    program = next(filter(None, map(shutil.which, _NAMES)))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        log = Path(profile) / "log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}/profile",
                "--window-size=1440,900",
                "about:blank",
                stderr=stderr,
                stdout=asyncio.subprocess.DEVNULL,
            )
        try:
            address = await _address(log)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{address}/json/list") as answer:
                    tabs = await answer.json()
                url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await page.call(f"{domain}.enable")
                    yield page
                    await page.close()
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


async def _address(log: Path) -> str:
    async with asyncio.timeout(30):
        while True:
            found = re.search(
                r"DevTools listening on ws://([^/]+)/", log.read_text("utf-8", "replace")
            )
            if found:
                return found[1]
            await asyncio.sleep(0.05)
