"""What the tests of the Chart-IMG simulator share: its clock, its client, and a server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engine.testing.chart_img import (
    BASIC,
    ENTERPRISE,
    PATH,
    Plan,
    RunningSimulator,
    Simulator,
    create_app,
    running_simulator,
)

KEY = "secret-key-of-a-basic-account"
RICH = "secret-key-of-an-enterprise-account"
PNG = b"\x89PNG\r\n\x1a\n"
TEN_O_CLOCK = 1_767_607_200.0
"""2026-01-05T10:00:00Z."""

TEMPLATE_STUDIES: dict[str, list[dict[str, Any]]] = {
    "ctpl_price_ma1226_vol_v1": [
        {"name": "Moving Average Double", "input": {"firstPeriods": 12, "secondPeriods": 26, "method": "Exponential"}},
        {"name": "Volume", "forceOverlay": True},
    ],
    "ctpl_price_ma1226_bb_macd1226_v1": [
        {"name": "Moving Average Double", "input": {"firstPeriods": 12, "secondPeriods": 26, "method": "Simple"}},
        {"name": "Bollinger Bands", "input": {"in_0": 20, "in_1": 2}},
        {"name": "MACD", "input": {"in_0": 12, "in_1": 26, "in_2": 9, "in_3": "close"}},
    ],
    "ctpl_price_psar_adi_v1": [
        {"name": "Parabolic SAR", "input": {"in_0": 0.02, "in_1": 0.02, "in_2": 0.2}},
        {"name": "Average Directional Index", "input": {"in_0": 14, "in_1": 14}},
    ],
    "ctpl_price_rsi14_stochrsi_v1": [
        {"name": "Relative Strength Index", "input": {"length": 14, "smoothingLine": "SMA", "smoothingLength": 14}},
        {"name": "Stochastic RSI", "input": {"in_0": 14, "in_1": 14, "in_2": 3, "in_3": 3}},
    ],
    "ctpl_price_vpvr_obv_v1": [
        {"name": "Volume Profile Visible Range", "input": {"rows": 24, "volume": "Up/Down", "vaVolume": 70}},
        {"name": "On Balance Volume", "input": {"smoothingLine": "SMA", "smoothingLength": 9}},
    ],
}


class Clock:
    """Time that moves only when told."""

    def __init__(self, now: float = TEN_O_CLOCK) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Client:
    """Calls the application in process, as any HTTP client would."""

    def __init__(self, accounts: dict[str, Plan] | None = None, **options: Any) -> None:
        self.clock = Clock()
        known = {KEY: BASIC, RICH: ENTERPRISE} if accounts is None else accounts
        self.app = create_app(known, clock=self.clock, **options)
        self.simulator: Simulator = self.app.state.simulator

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(call())

    def chart(self, body: Any = None, *, key: str | None = RICH) -> httpx.Response:
        headers = {} if key is None else {"x-api-key": key}
        return self.request("POST", PATH, headers=headers, json={} if body is None else body)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSimulator]:
    with running_simulator({KEY: BASIC, RICH: ENTERPRISE}) as simulator:
        yield simulator


@pytest.fixture
def live(running: RunningSimulator) -> RunningSimulator:
    running.simulator.reset()
    return running


def post(live: RunningSimulator, body: Any = None, *, key: str = RICH, timeout: float = 10.0) -> httpx.Response:
    return httpx.post(live.url + PATH, headers={"x-api-key": key}, json=body or {}, timeout=timeout)
