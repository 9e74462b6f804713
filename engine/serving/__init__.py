"""One model behind OpenAI's interface, for any client that speaks it."""
