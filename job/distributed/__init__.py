"""Several processes, one run: rank 0 runs the job, the others follow it."""
