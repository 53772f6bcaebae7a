"""Measurements of medseg itself: never tests, always ratios within one run."""
