"""Image files read on a cluster: each node hashes or decodes a part of them, and this process takes what they give.

Nodes read files by their paths. What a node does not see, or would decode with another Pillow, is read here: to send a
file takes as long as to decode it. So results do not depend on where a file is read, and a lost node changes nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL

from thaw.cluster import Cluster, Device, State, sizes_of, states_of, this_node, unseen_on_node
from thaw.data.decoding import DecodedFile, Decoding, decode_file, read_decoded, write_decoded
from thaw.data.reader import HERE, digest_of, reads_on_nodes
from thaw.progress import Reporter

FILES = 64
"""Files of a part: up to a second of work, and what is repeated when a node is lost."""

_ONE_CPU = Device(1, 0)
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


class ClusterReader:
    """A `Reader` on the nodes of a cluster; few files are read in this process."""

    def __init__(self, cluster: Cluster, reporter: Reporter) -> None:
        self._cluster, self._reporter, self._is_said = cluster, reporter, False

    def digests(self, files: Sequence[Path], workers: int) -> Iterator[str]:
        """As `ReaderHere.digests`."""

        def here(part: Sequence[Path]) -> Iterator[str]:
            return HERE.digests(part, workers)

        return self._results(files, digests_of_part, (), here, iter)

    def decoded(self, files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
        """As `ReaderHere.decoded`."""

        def here(part: Sequence[Path]) -> Iterator[DecodedFile]:
            return HERE.decoded(part, decoding)

        how = json.dumps({"decoding": decoding.to_json(), "pillow": PIL.__version__})
        return self._results(files, decoded_part, (how,), here, _files_in)

    def _results(
        self,
        files: Sequence[Path],
        on_node: Callable[..., _Part | str],
        how: tuple[object, ...],
        here: Callable[[Sequence[Path]], Iterator[_Result]],
        results_in: Callable[[_Part], Iterator[_Result]],
    ) -> Iterator[_Result]:
        """The results of all files: those in what a function gives on a node for a part, or what is read here."""
        if not reads_on_nodes(len(files)) or self._is_blind(files):
            yield from here(files)
            return
        parts = [files[start : start + FILES] for start in range(0, len(files), FILES)]
        pieces = (([str(file.absolute()) for file in part], states_of(part), *how) for part in parts)
        with closing(self._cluster.starmap(on_node, pieces, _ONE_CPU)) as found:
            for part, result in zip(parts, found, strict=True):
                if isinstance(result, str):
                    self._say(result)
                    yield from here(part)
                else:
                    yield from results_in(result)

    def _is_blind(self, files: Sequence[Path]) -> bool:
        """Whether a node does not see the first file of each folder."""
        firsts = {file.parent: file for file in reversed(files)}
        unseen = self._cluster.unseen(sizes_of(firsts.values()))
        if unseen:
            self._say(unseen)
        return bool(unseen)

    def _say(self, reason: str) -> None:
        """Say why files are read here; only the first time."""
        if not self._is_said:
            self._is_said = True
            self._reporter.say(f"images are read here instead of on the nodes: {reason}")


def digests_of_part(files: Sequence[str], states: Mapping[str, State]) -> list[str] | str:
    """Run on a node: the digest of each file, or a sentence on one that is another here."""
    return unseen_on_node(states) or [digest_of(Path(file)) for file in files]


def decoded_part(files: Sequence[str], states: Mapping[str, State], how: str) -> np.ndarray | str:
    """Run on a node: each file as `write_decoded` writes it, as uint8 (bytes,), or a sentence on what differs here.

    Args:
        files: Absolute paths.
        states: What `states_of` gave for them.
        how: The decoding and the version of Pillow, as JSON.
    """
    wanted = json.loads(how)
    if unseen := unseen_on_node(states):
        return unseen
    if wanted["pillow"] != PIL.__version__:
        return f"{this_node()}: has Pillow {PIL.__version__}, and the command {wanted['pillow']}"
    decoding, stream = Decoding.from_json(wanted["decoding"]), io.BytesIO()
    for file in files:
        write_decoded(decode_file(Path(file), decoding), stream)
    return np.frombuffer(stream.getbuffer(), np.uint8)


def _files_in(part: np.ndarray) -> Iterator[DecodedFile]:
    """What `decoded_part` has written."""
    stream = io.BytesIO(part.data)
    while decoded := read_decoded(stream):
        yield decoded
