"""Work on a Ray cluster: many independent pieces, or processes that run at the same time.

`connection` joins a cluster, `cluster` gives pieces to its nodes, `on_node` is what a node does with one, and `group`
starts processes at the same time; `shared_files` tells whether a node sees the files of the command, and `shipment`
what is sent to it where it does not. Ray schedules the pieces, repeats those whose node is lost, and lets nodes join
and leave. A piece is a function of the installed Thaw, named by its module, and plain values: paths, numbers, text,
bytes and arrays.
"""

from __future__ import annotations

from thaw.cluster.cluster import Cluster, Device, Node
from thaw.cluster.connection import check_address, connected
from thaw.cluster.on_node import this_node, unseen_on_node
from thaw.cluster.shared_files import State, sizes_of, states_of
from thaw.cluster.shipment import Shipment, Work

__all__ = [
    "Cluster",
    "Device",
    "Node",
    "Shipment",
    "State",
    "Work",
    "check_address",
    "connected",
    "sizes_of",
    "states_of",
    "this_node",
    "unseen_on_node",
]
