"""From a line of JSON to a conversation in one form, checked; or to why it is refused."""
