"""Networks, one file a family: each file's ``ARCHITECTURES`` is found by looking (pud/models/make.py)."""
