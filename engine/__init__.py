"""The training engine. Deliberately empty: importing `engine.contract` must never import torch."""
