"""Evaluation on data sets, and its reports."""
