"""The stages of a run, and what all of them share (`context.Run`)."""
