"""The calls of dev containers and of VS Code's attach, by docker's SDK: a workspace mount, exec with a stream of its own, archives
both ways, events, and what makes an image of a container."""
import io
import os
import tarfile
import threading

import docker
from docker.types import Mount

client = docker.from_env()
image, mark, here = os.environ["IMAGE"], os.environ["MARK"], os.getcwd()
events, started = client.events(decode=True, filters={"event": ["start"], "label": f"mark={mark}"}), threading.Event()


def watch():
    for event in events:
        if event["Action"] == "start":
            started.set()
            return


threading.Thread(target=watch, daemon=True).start()
container = client.containers.create(
    image,
    ["-c", "echo Container started; trap 'exit 0' 15; while sleep 1 & wait $!; do :; done", "-"],
    name=f"{mark}-dev",
    entrypoint="/bin/sh",
    init=True,
    labels={"mark": mark, "devcontainer.local_folder": here, "devcontainer.config_file": here + "/.devcontainer/devcontainer.json"},
    mounts=[
        Mount("/workspaces/app", here, type="bind", consistency="cached"),
        Mount("/vscode", f"{mark}-vscode", type="volume"),
    ],
    cap_add=["SYS_PTRACE"],
    security_opt=["seccomp=unconfined"],
)
attached = container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1, "logs": 1})
container.start()
print("event", started.wait(60))
print("attached", docker.utils.socket.next_frame_header(attached), end=" ")
print(attached.read(18) if hasattr(attached, "read") else attached.recv(18))
found = client.containers.list(all=True, filters={"label": f"devcontainer.local_folder={here}"})
print("found", [one.name == container.name for one in found])
print("mounts", sorted((one["Type"], one["Destination"], one["Source"].replace(here, "HERE")) for one in found[0].attrs["Mounts"] if one["Type"] == "bind"))

# A shell that lives on, to which commands are written; as VS Code has it.
exec_id = client.api.exec_create(container.id, ["/bin/sh"], stdin=True, workdir="/workspaces/app", environment={"A": "b"})["Id"]
stream = client.api.exec_start(exec_id, socket=True)
raw = stream._sock if hasattr(stream, "_sock") else stream


def say(command):
    raw.sendall(f"{command}; echo \"[$?]\"\n".encode())
    said = b""
    while not said.endswith(b"]\n"):
        _, length = docker.utils.socket.next_frame_header(stream)
        said += docker.utils.socket.read_exactly(stream, length)
    return said.decode()


print("shell", say("pwd; cat data/in; echo $A; ls /absent 2>/dev/null"))
print("shell", say("echo made > made; head -c 3000000 /dev/zero | wc -c"))
raw.shutdown(1)
stream.close()

# The server of an editor comes as an archive, and goes as one.
big = os.urandom(3_000_000)
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    for name, content in [("server/bin/run", b"#!/bin/sh\necho ran\n"), ("server/big", big)]:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
print("put", container.put_archive("/vscode", archive.getvalue()))
print("run", container.exec_run("/vscode/server/bin/run", user="nobody"))
chunks, stat = container.get_archive("/vscode/server/big")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
    print("get", stat["size"], tar.extractfile("big").read() == big)
# Into the workspace, from where it comes here.
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    info = tarfile.TarInfo("put")
    info.size = 3
    tar.addfile(info, io.BytesIO(b"put"))
print("put", container.put_archive("/workspaces/app", archive.getvalue()))
terminal = container.exec_run(["sh", "-c", "test -t 0 && test -t 1 && echo terminal"], tty=True, stdin=True)
print("tty", terminal)
resized = client.api.exec_create(container.id, ["sh", "-c", "read x; stty size"], stdin=True, tty=True)["Id"]
stream = client.api.exec_start(resized, socket=True, tty=True)
raw = stream._sock if hasattr(stream, "_sock") else stream
client.api.exec_resize(resized, height=33, width=77)
raw.sendall(b"go\n")
said = b""
while b"33 77" not in said and (more := raw.recv(100)):
    said += more
print("size", b"33 77" in said)
stream.close()
print("top", len(container.top()["Processes"]) > 0)
print("stats", container.stats(stream=False)["name"] == f"/{mark}-dev")
container.stop(timeout=30)
print("ended", container.wait()["StatusCode"])
