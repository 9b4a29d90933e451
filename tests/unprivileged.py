"""Calls without the rights of the user who runs the tests, who may be root and then can write anywhere."""

import os
import warnings
from collections.abc import Callable

NOBODY = 65534


def unprivileged(call: Callable[[], object]) -> str:
    """What a call says, as the message of its error or else its result, in a child process that is not root."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns about forks of processes with several threads from 3.12 on.
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            said = str(call())
        except BaseException as error:
            said = str(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said
