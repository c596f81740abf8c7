"""Commands that are no batch job: one module each, whose `command` returns the exit code and raises
what `job.errors` lists. They are imported when they are called for."""
