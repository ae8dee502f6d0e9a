"""What passes between the steps, as it lies on disk: one file a kind of folder."""
