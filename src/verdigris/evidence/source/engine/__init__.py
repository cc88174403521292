"""Engines and session factories as they are declared: URLs, drivers, poolers, time limits, and what watches them."""
