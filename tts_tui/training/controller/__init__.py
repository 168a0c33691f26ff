"""Calibration of the controller: difficulty model, curves and costs."""
