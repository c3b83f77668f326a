"""What keeps `penstock up` from starting.

StartFailed    the message says which process, port or directory, and what to change
"""


class StartFailed(Exception):
    """Raised when the installation cannot be started. Whatever was started has been stopped again."""
