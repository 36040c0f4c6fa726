"""Discriminators, and the table of them."""

from melisma.discriminators.base import Discriminator
from melisma.discriminators.period import MultiPeriod
from melisma.discriminators.scale import MultiScale

DISCRIMINATORS: dict[str, type[Discriminator]] = {"multi-period": MultiPeriod, "multi-scale": MultiScale}

__all__ = ["DISCRIMINATORS", "Discriminator", "MultiPeriod", "MultiScale"]
