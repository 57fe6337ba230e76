"""The error of backups."""

from clickstream_assets.errors import ClickstreamError


class BackupError(ClickstreamError):
    """A backup cannot be made, read or put back; the message names the place or setting, and the fix."""
