"""Errors about data, as the user is told them."""


class DataError(ValueError):
    """Data that cannot be used, as one line for the user.

    Attributes:
        key: the key of the config that the line is about, such as ``data.inputs``; the line itself does not name it.
    """

    def __init__(self, line: str, key: str = "data.path"):
        super().__init__(line)
        self.key = key
