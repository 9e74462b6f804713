"""Recipes that write the bundled assets: the starter model and the sample datasets."""
