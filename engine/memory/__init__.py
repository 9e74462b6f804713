"""Byte accounting, without torch: the estimator sums the layouts that the engine allocates."""
