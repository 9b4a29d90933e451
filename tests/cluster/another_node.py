"""Starts a node of a Ray cluster on loopback, and ends with its standard input: `python another_node.py ADDRESS BYTES`.

`ray start` would look for an address that other machines know.
"""

import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

Node(
    RayParams(
        gcs_address=sys.argv[1],
        redis_address=sys.argv[1],
        object_store_memory=int(sys.argv[2]),
        num_cpus=1,
        num_gpus=0,
        node_ip_address="127.0.0.1",
        node_manager_port=0,
        min_worker_port=0,
        max_worker_port=0,
        dashboard_agent_listen_port=None,
        include_log_monitor=False,
    ),
    head=False,
)
sys.stdin.read()
