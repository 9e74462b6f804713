"""Two models side by side: conversations, blind votes, lists of prompts, numbers and exports."""
