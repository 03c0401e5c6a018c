"""Starts a container, and dies before it can remove it."""
import contextlib
import os
import signal
import socket
from pathlib import Path

from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID
from testcontainers.core.network import Network


def is_acknowledged():
    """Whether Ryuk has taken the filter."""
    try:
        return Reaper._socket.recv(4) == b"ACK\n"
    except OSError:
        return False


def send_again():
    ryuk = Reaper._container.get_container_host_ip(), int(Reaper._container.get_exposed_port(8080))
    Reaper._socket.close()
    Reaper._socket = socket.create_connection(ryuk, timeout=60)
    with contextlib.suppress(OSError):
        Reaper._socket.send(f"label={LABEL_SESSION_ID}={SESSION_ID}\r\n".encode())


# Testcontainers 4.15 means to wait until Ryuk says that it has started, and does not (it sets what to wait for after the
# start). The engine's proxy takes its connection even if nothing listens in the container yet, and closes it: the filter
# is lost, near or far.
Reaper.get_instance()
while not is_acknowledged():
    send_again()

network = Network().create()
container = DockerContainer(os.environ["IMAGE"], network=network).with_command("sleep 600")
container.with_volume_mapping(Path("data").absolute(), "/data").start()
print(container.exec(["cat", "/data/in"]).output.decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
