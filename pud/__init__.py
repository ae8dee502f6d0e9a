"""Progressive Unified Defense: one procedure against backdoors and adversarial examples."""

__version__ = "0.1.0"
