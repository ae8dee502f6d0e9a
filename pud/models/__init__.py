"""Classifiers: the contract that all keep, networks, training."""
