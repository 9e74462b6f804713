"""What `python -m engine` can do, one file per group of commands."""
