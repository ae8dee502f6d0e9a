"""What a model says of its training images: all that detection may use."""
