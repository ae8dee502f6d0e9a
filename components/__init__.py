"""Kubeflow components: KFP types in, one step called, metrics out."""
