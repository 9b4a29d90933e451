"""Work on a Ray cluster: many independent pieces, or processes that run at the same time.

`connection` joins a cluster, `cluster` gives pieces to its nodes, `on_node` is what a node does with one, and `group`
starts processes at the same time. Ray schedules the pieces, repeats those whose node is lost, and lets nodes join and
leave. A piece is a function of the installed Thaw, named by its module, and plain values: paths, numbers, text, bytes
and arrays.
"""

from __future__ import annotations

from thaw.cluster.cluster import Cluster, Device, Node
from thaw.cluster.connection import check_address, connected

__all__ = ["Cluster", "Device", "Node", "check_address", "connected"]
