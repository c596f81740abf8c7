"""Checkpoints as folders with a manifest: upload, verify, restore, retain. No torch."""

from job.checkpoint.commit import Change, Committed, Local
from job.checkpoint.grace import Grace
from job.checkpoint.manifest import MANIFEST_NAME, Manifest, Rejected, sha256_file
from job.checkpoint.restore import Restored, fetch_checkpoint, restore_newest
from job.checkpoint.retain import best, collect_orphans, drop, unlist
from job.checkpoint.transfer import StoredFolder, download_folder, upload_folder
from job.checkpoint.uploader import CheckpointUploader

__all__ = [
    "MANIFEST_NAME",
    "Change",
    "CheckpointUploader",
    "Committed",
    "Grace",
    "Local",
    "Manifest",
    "Rejected",
    "Restored",
    "StoredFolder",
    "best",
    "collect_orphans",
    "download_folder",
    "drop",
    "fetch_checkpoint",
    "restore_newest",
    "sha256_file",
    "unlist",
    "upload_folder",
]
