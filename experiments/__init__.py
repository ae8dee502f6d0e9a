"""Measurements that back the README's figures; run from the root of the checkout."""
