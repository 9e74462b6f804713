"""Pure update rules."""
