class InstaNERError(ValueError):
    """Raised for what the user can mend: the message is one line that names the
    bad value, where it came from and what to do. The CLI prints it and exits 1.
    """
