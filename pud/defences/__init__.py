"""From an infected model to a purified one: our defence and others, one file each."""
