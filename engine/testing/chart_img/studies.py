"""The studies the simulator knows, by their names in the API.

In: a study's name, the bars and its `input`. Out: its `StudyPlot`.
This look-up is the only list of names: the request rules refuse whatever is not in it.
Short names of other API versions ("RSI", "BB") are refused, as the real v2 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.testing.chart_img.oscillators import OSCILLATORS
from engine.testing.chart_img.overlays import OVERLAYS
from engine.testing.chart_img.plots import StudyFunction

STUDIES: Mapping[str, StudyFunction] = MappingProxyType(dict(sorted({**OVERLAYS, **OSCILLATORS}.items())))
