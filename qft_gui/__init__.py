"""The window: thin pages over a service that rebuilds everything from the run folders."""
