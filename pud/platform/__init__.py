"""How steps are run: command line, local runner, cluster."""
