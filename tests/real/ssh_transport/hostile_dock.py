"""A server of ssh that opens forwarded connections whenever it is told to, whatever it was asked to listen at.

It prints its port and host key. The command `open ADDRESS PORT` opens a connection that claims to have come in there, and says
what became of it; `asked` says what it was asked to listen at.
"""

import socket
import threading

import paramiko

KEY = paramiko.ECDSAKey.generate()


class Server(paramiko.ServerInterface):
    def __init__(self, transport):
        self.transport, self.asked, self.direct = transport, [], {}

    def check_auth_none(self, user):
        return paramiko.AUTH_SUCCESSFUL

    check_auth_publickey = lambda self, user, key: paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, user):
        return "publickey"

    def check_channel_request(self, kind, number):
        if kind == "session":
            return paramiko.OPEN_SUCCEEDED
        return paramiko.OPEN_FAILED_UNKNOWN_CHANNEL_TYPE

    def check_port_forward_request(self, address, port):
        self.asked.append(f"{address}:{port}")
        return port

    def cancel_port_forward_request(self, address, port):
        self.asked.remove(f"{address}:{port}")

    def check_channel_direct_tcpip_request(self, number, origin, to):
        # What connects to the address comes in; its loopback is closed.
        if f"{to[0]}:{to[1]}" not in self.asked:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        self.direct[number] = to
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self.execute, args=(channel, command.decode().split()), daemon=True).start()
        return True

    def execute(self, channel, words):
        if words[0] == "open":
            try:
                opened = self.transport.open_forwarded_tcpip_channel(("10.1.1.1", 4), (words[1], int(words[2])))
                opened.sendall(b"from there")
                channel.sendall(b"opened")
            except paramiko.ChannelException as refused:
                channel.sendall(f"refused {refused.code}".encode())
        elif words[0] == "asked":
            channel.sendall(" ".join(self.asked).encode())
        channel.send_exit_status(0)
        channel.close()

    def relay(self, channel, to):
        out = self.transport.open_forwarded_tcpip_channel(("10.1.1.1", 4), to)
        while data := channel.recv(4096):
            out.sendall(data)
        out.close()


def serve(connection):
    transport = paramiko.Transport(connection)
    transport.add_server_key(KEY)
    server = Server(transport)
    transport.start_server(server=server)
    kept = []
    while transport.is_active():
        channel = transport.accept(1)
        if channel is not None:
            kept.append(channel)
            if channel.chanid in server.direct:
                to = server.direct.pop(channel.chanid)
                threading.Thread(target=server.relay, args=(channel, to), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], KEY.get_name(), KEY.get_base64(), flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
