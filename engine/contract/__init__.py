"""All that others may know about a run. Nothing in here imports torch or transformers."""
