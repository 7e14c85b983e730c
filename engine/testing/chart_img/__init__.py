"""A Chart-IMG simulator: the vendor's API on loopback, with its errors, limits and faults on demand.

In: `POST /v2/tradingview/advanced-chart`. Out: drawn charts of a made-up market, byte-identical for the same request.
Tests start it with `running_simulator` (in a thread) or `serve` (in the event loop), script faults through the
`Simulator` or over HTTP, and read back every call. It is a test tool: production code never imports it,
it imports nothing of the engine, and no picture it draws is market data.
"""

from engine.testing.chart_img.application import PATH, create_app
from engine.testing.chart_img.faults import Answer, Match, key_fingerprint
from engine.testing.chart_img.plans import BASIC, ENTERPRISE, MEGA, PLANS, PRO, ULTRA, Plan, account_from_text
from engine.testing.chart_img.server import RunningSimulator, running_simulator, serve, simulate
from engine.testing.chart_img.simulator import Call, Options, Simulator

__all__ = [
    "BASIC",
    "ENTERPRISE",
    "MEGA",
    "PATH",
    "PLANS",
    "PRO",
    "ULTRA",
    "Answer",
    "Call",
    "Match",
    "Options",
    "Plan",
    "RunningSimulator",
    "Simulator",
    "account_from_text",
    "create_app",
    "key_fingerprint",
    "running_simulator",
    "serve",
    "simulate",
]
