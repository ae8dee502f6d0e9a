"""What every room uses: errors, settings, devices, progress, files."""
