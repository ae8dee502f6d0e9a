"""Labelled images, from a folder to batches on a device."""
