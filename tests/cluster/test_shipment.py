"""The user is told once why images are sent, and at the end how many bytes they were."""

from __future__ import annotations

from tests.cluster.two_nodes import Watching
from thaw.cluster import Shipment


def test_it_is_said_once_why_images_are_sent_and_at_the_end_how_many_bytes() -> None:
    watching = Watching()
    with Shipment(watching) as shipment:
        for _ in range(2):
            shipment.begin("node b: does not see /photos/1.jpg")
            shipment.add(700_000)
    assert watching.said == [
        "images are sent to the nodes through Ray: node b: does not see /photos/1.jpg",
        "sent 1.4 MB of images to the nodes",
    ]


def test_nothing_is_said_where_nothing_is_sent() -> None:
    watching = Watching()
    with Shipment(watching):
        pass
    assert not watching.said
