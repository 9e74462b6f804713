"""One script per claim; results as JSON that names its hardware."""
