"""Difficulty estimation, calibrations, and the controller that chooses plans for `auto`."""
