"""How good the embedded PRM is, and what search makes of it, on problems that it never saw."""
