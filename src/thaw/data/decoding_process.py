"""A process that decodes image files: a request on its standard input, results on its standard output.

When nobody can read them any more, however that came about, it ends.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from thaw.data.decoding import Decoding, decode_file, write_decoded


def main() -> None:
    """Decode what is requested, in order."""
    request = json.load(sys.stdin)
    decoding = Decoding.from_json(request["decoding"])
    with suppress(BrokenPipeError, KeyboardInterrupt):
        for file in request["files"]:
            write_decoded(decode_file(Path(file), decoding), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
