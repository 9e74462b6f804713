"""What a run's result can be handed on as: one file per form, and what goes with each of them."""
