"""Tensors as a plan lays them out: read in float32, change, write. One file per layout."""
