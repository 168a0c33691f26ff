"""Reading answers out of solutions, comparing them, and voting."""
