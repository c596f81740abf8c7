"""What users may want besides the adapter: merged 16-bit weights, a GGUF file, a copy on a
model hub.

All of it is made after the adapter is verified in storage and before the run is recorded as
succeeded, so that nobody who asked for it finds a run that ended well without it. Each is recorded
as soon as it is verified: an attempt after one that was stopped, or failed, makes only the rest.
"""

from job.exports.check import check, lacking, refuse_new, wanted
from job.exports.make import ExportContext, make

__all__ = ["ExportContext", "check", "lacking", "make", "refuse_new", "wanted"]
