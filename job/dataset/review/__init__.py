"""What became of the data: counts, reports, the mask preview, a verdict."""
