"""Checkpoints as folders with a manifest: upload, verify, restore, retain. No torch."""

from job.checkpoint.manifest import MANIFEST_NAME, Manifest, Rejected, sha256_file
from job.checkpoint.restore import Restored, restore_newest
from job.checkpoint.retain import best, unlist
from job.checkpoint.transfer import StoredFolder, download_folder, upload_folder
from job.checkpoint.uploader import CheckpointUploader, Committed, Local

__all__ = [
    "MANIFEST_NAME",
    "CheckpointUploader",
    "Committed",
    "Local",
    "Manifest",
    "Rejected",
    "Restored",
    "StoredFolder",
    "best",
    "download_folder",
    "restore_newest",
    "sha256_file",
    "unlist",
    "upload_folder",
]
