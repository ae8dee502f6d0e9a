"""What people read of a run: report, plots, MLflow."""
