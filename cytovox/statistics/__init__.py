"""Comparison of groups, cohorts over time, bootstrap intervals and classification."""
