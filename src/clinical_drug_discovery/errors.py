"""The one exception for what a user can put right: a bad parameter, file or name.

Anything else that is raised is a fault of ours and keeps its traceback. The command line turns an
`InputError` into one line on stderr and exit code 2.
"""


class InputError(ValueError):
    """A parameter or file breaks a stated rule; the message names it, its value and the rule."""


class DoesNotFitError(InputError):
    """A memory budget is too small for what is asked."""
