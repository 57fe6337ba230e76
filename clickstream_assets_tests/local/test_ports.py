"""Loopback ports."""

import os
import socket

from clickstream_assets.local.ports import LOOPBACK, accepts_connections, free_port, holder, is_free


def test_a_port_in_use_is_not_free_and_its_holder_is_named():
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
        assert accepts_connections(port)
        assert holder(port).startswith(f"process {os.getpid()} (")


def test_a_free_port_is_free():
    port = free_port()
    assert is_free(port)
    assert not accepts_connections(port)
