"""Difficulty estimation, calibrations, and the choice of a plan for `auto`."""
