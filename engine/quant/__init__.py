"""Pure tensor functions: 8-bit codes, rounding, and the random numbers that rounding needs."""
