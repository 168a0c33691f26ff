"""Calibrating the controller: difficulty model, curves, costs."""
