"""From a file to padded batches of tokens."""
