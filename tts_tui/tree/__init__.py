"""The search tree: events, nodes, totals, and the files that record them."""
