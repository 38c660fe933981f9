"""Measurements, each as a ratio in one run where that is possible."""
