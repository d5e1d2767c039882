"""USD an hour of EC2's machine types: on demand, Linux, the cheapest large region, as of
2025-01-01. For "what does this roughly cost", never for an invoice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

USD_HOUR: Final[Mapping[str, float]] = {
    "t3.micro": 0.0104,
    "t3.small": 0.0208,
    "t3.medium": 0.0416,
    "t3.large": 0.0832,
    "m5.large": 0.096,
    "m5.xlarge": 0.192,
    "m6i.large": 0.096,
    "m6i.xlarge": 0.192,
    "m7i.large": 0.1008,
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "m7g.large": 0.0816,
    "m7g.xlarge": 0.1632,
}
