"""Which training images are poisoned: our detector and others, one file each."""
