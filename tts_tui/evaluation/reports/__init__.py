"""Reports, figures, tables and plots of an evaluation."""
