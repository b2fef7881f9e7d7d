"""Why and what a cell forgot: its distance from the base, the likeliest of given answers, a few steps of mere form."""

from __future__ import annotations

from .reference import POSITIONS, SAMPLES, Reference, answer_positions

__all__ = ["POSITIONS", "SAMPLES", "Reference", "answer_positions"]
