"""The one exception that the command line turns into one line on stderr and exit code 1."""


class CliError(Exception):
    """Something that the person at the keyboard can act on; everything else is a bug and crashes."""
