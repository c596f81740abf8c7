"""The commands beside `run`: what they are asked, and what they say. Free of torch."""
