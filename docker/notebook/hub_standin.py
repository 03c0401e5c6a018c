"""Stands in for a JupyterHub: hub_standin.py COMMAND...

`run-notebook --as-hub` puts this file beside start-notebook. jupyterhub-singleuser does not start before its hub answers, and
asks the hub who its visitors are. This answers it, inside the container and on its 127.0.0.1 only: whoever has the server's
token is its user, and nobody else is. Then it becomes the command, with jupyterhub-singleuser in the place of `jupyter lab`,
and with the variables that a hub sets. JUPYTERHUB_USER and JUPYTERHUB_SERVICE_URL are set before.

Nothing but Python's own library is needed. Facts: jupyterhub/singleuser/extension.py, jupyterhub/services/auth.py and
Spawner.get_env of JupyterHub.
"""

import hmac
import http.server
import importlib.metadata
import json
import os
import sys
import urllib.parse

#: The program that a hub starts.
SINGLEUSER = "jupyterhub-singleuser"


def scopes(user):
    return [f"access:servers!server={user}/", f"access:servers!user={user}"]


def hub_variables(user, service_url, port, token):
    """What a hub tells its users' servers. In a URL, it would take no token."""
    hub = f"http://127.0.0.1:{port}/hub/api"
    prefix = urllib.parse.urlsplit(service_url).path
    return {
        "JUPYTERHUB_ACTIVITY_URL": f"{hub}/users/{user}/activity",
        "JUPYTERHUB_ALLOW_TOKEN_IN_URL": "1",
        "JUPYTERHUB_API_TOKEN": token,
        "JUPYTERHUB_API_URL": hub,
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{user}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps(scopes(user)),
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps(scopes(user)),
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
    }


def command_of_hub(command):
    """The command as a hub would give it. Scripts of images decide by JUPYTERHUB_API_TOKEN what they start."""
    if os.path.basename(command[0]) == "jupyter" and command[1:2] in (["lab"], ["notebook"], ["server"]):
        return [SINGLEUSER, *command[2:]]
    if os.path.basename(command[0]) in ("jupyter-lab", "jupyter-notebook", "jupyter-server"):
        return [SINGLEUSER, *command[1:]]
    return command


class HubServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Who goes away, or sends nothing more, is no error of this one, and the log is the server's.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Hub(http.server.BaseHTTPRequestHandler):
    #: Seconds in which a request comes.
    timeout = 30
    user = ""
    token = ""

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        try:
            self.send_header("X-JupyterHub-Version", importlib.metadata.version("jupyterhub"))
        except importlib.metadata.PackageNotFoundError:
            pass
        self.end_headers()
        self.wfile.write(body)

    def is_known(self):
        given = self.headers.get("Authorization", "").split(" ", 1)
        return len(given) == 2 and hmac.compare_digest(given[1].encode(), self.token.encode())

    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        if path == "/hub/api":
            self.answer(200, {"version": "a stand-in"})
        elif path == "/hub/api/user" and self.is_known():
            user = {"kind": "user", "name": self.user, "admin": False, "groups": [], "scopes": scopes(self.user)}
            self.answer(200, user)
        else:
            status = 403 if path == "/hub/api/user" else 404
            self.answer(status, {"status": status, "message": "this is a stand-in of a hub"})

    def do_POST(self):
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 6):
            self.close_connection = True
            self.answer(400, {"status": 400, "message": "this Content-Length is not served"})
            return
        self.rfile.read(int(length))
        self.answer(200 if self.is_known() else 403, {})

    def log_message(self, *_):
        pass


def main():
    user, token = os.environ["JUPYTERHUB_USER"], os.environ["JUPYTER_TOKEN"]
    Hub.user, Hub.token = user, token
    server = HubServer(("127.0.0.1", 0), Hub)
    if os.fork() == 0:
        # Signals for the server's process group are not for it: the server asks it until its end.
        os.setsid()
        server.serve_forever()
    variables = hub_variables(user, os.environ["JUPYTERHUB_SERVICE_URL"], server.server_port, token)
    server.socket.close()
    os.environ.update(variables)
    command = command_of_hub(sys.argv[1:])
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
