"""Adversarial examples, and whether robustness against them is real."""
