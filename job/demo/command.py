"""`demo`: the embedded run on this machine."""

from __future__ import annotations

import argparse

from job.demo.demo import demo


def command(arguments: argparse.Namespace) -> int:
    return demo(arguments.output)
