"""Pictures, a recorded log, and a service of Chart-IMG over a transport of the test's own."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.core.handler import ActionRequest
from engine.core.secret import Secrets
from engine.handlers.accounts import AccountPools, parse_accounts
from engine.handlers.chart_img import ChartImg, ChartImgSettings, capture

KEY = "sk-live-0123456789abcdef"
ACCOUNTS = json.dumps([{"id": "main", "apiKey": KEY}, {"id": "spare", "apiKey": "k2"}])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png(width: int = 2, height: int = 1, *, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(min(width, 64)) for _ in range(min(height, 64))))
    padding = chunk(b"siMm", extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + padding + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def png() -> Callable[..., bytes]:
    return make_png


class Events(list[tuple[str, str, dict[str, Any]]]):
    """What was logged: (event, severity, fields)."""

    def __call__(self, event: str, /, severity: str = "INFO", **fields: Any) -> None:
        self.append((event, severity, fields))

    @property
    def names(self) -> list[str]:
        return [event for event, _, _ in self]


class Bench:
    """One service, and a way to ask it for a chart."""

    def __init__(self, folder: Path, mode: str, transport: Any, base_url: str, accounts: str = ACCOUNTS) -> None:
        self.folder = folder
        self.events = Events()
        self.secrets = Secrets()
        pools = AccountPools({"chart_img": parse_accounts(accounts, "CHART_IMG_ACCOUNTS_JSON")}, self.secrets)
        settings = ChartImgSettings(mode, base_url, folder / "fixtures", folder / "cassette.yaml")
        self.service = ChartImg(settings, pools, self.secrets, transport=transport)

    async def capture(self, attempt_timeout_s: float | None = None, **params: Any) -> Any:
        request = ActionRequest(
            params=PARAMS | params,
            run_id="r",
            machine="chart_request",
            state="CAPTURING",
            attempt=1,
            idempotency_key="r/1",
            timeout_s=attempt_timeout_s,
            pools={},
            services={ChartImg: self.service},
            log=self.events,
        )
        return await capture(request)


PARAMS: Mapping[str, Any] = {
    "account": "main",
    "payload": {"symbol": "BINANCE:BTCUSDT", "interval": "1h", "width": 800},
    "template_id": "ctpl_a_v1",
    "symbol": "BINANCE:BTCUSDT",
    "timeframe": "1h",
}


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(mode: str = "real", transport: Any = None, base_url: str = "http://chart.test", **more: Any) -> Bench:
        return Bench(tmp_path, mode, transport, base_url, **more)

    return make
