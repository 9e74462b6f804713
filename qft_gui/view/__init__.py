"""Pure functions from what is known to what is shown: numbers, sentences, frames of fragments."""
