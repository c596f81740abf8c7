"""Held-out assistant turns: how answers are read, generated or asked for, scored and summed up.

Only `evaluate` and `generate` import torch.
"""
