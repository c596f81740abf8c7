"""The embedded run of `make demo`: data, a small model, an S3 server, a preemption, all here."""
