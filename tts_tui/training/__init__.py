"""Training of process reward models and calibration of the controller."""
