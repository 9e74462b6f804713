"""One reader for each kind of file that can hold records. No torch."""
