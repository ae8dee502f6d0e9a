"""The cluster: submitting, pre-flight. The only importers of kubernetes."""
