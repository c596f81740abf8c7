"""The data objects: found or recorded, brought to the work volume, hashed, read by line."""
