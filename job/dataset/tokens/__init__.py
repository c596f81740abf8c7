"""From a conversation to the text that the model reads, and to token ids and labels."""
