"""What can be known before a GPU is asked for: `validate`, and `doctor` on the node."""
