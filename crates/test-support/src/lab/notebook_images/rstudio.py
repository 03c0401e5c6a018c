#!/usr/bin/env python3
"""Plays an image of RStudio: a server on port 8787 that demands USERID, GROUPID and PASSWORD.

It begins as root, gives the user rstudio these numbers, and becomes that user. Who asks for a page is sent to
/auth-sign-in; who signs in there as rstudio with the password sees the page. `PUT /files/PATH` writes the file /PATH, as a
session would.
"""

import http.cookies
import http.server
import os
import secrets
import subprocess
import sys
import urllib.parse

SIGN_IN = b"""<!DOCTYPE html><title>RStudio Sign In</title><h1>Sign in to RStudio</h1>
<form method=post action=auth-do-sign-in><input name=username><input name=password type=password><button>Sign In</button></form>"""
PAGE = b"<!DOCTYPE html><title>RStudio Server</title><h1 id=rstudio>RStudio</h1>"


class Server(http.server.BaseHTTPRequestHandler):
    cookie = secrets.token_hex(16)
    password = ""

    def is_known(self):
        cookies = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        return "user-id" in cookies and cookies["user-id"].value == self.cookie

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/auth-sign-in"):
            self.answer(200, SIGN_IN, Content_Type="text/html")
        elif self.is_known():
            self.answer(200, PAGE, Content_Type="text/html")
        else:
            self.answer(302, Location="/auth-sign-in")

    def do_POST(self):
        form = urllib.parse.parse_qs(self.body().decode())
        right = form.get("username") == ["rstudio"] and form.get("password") == [self.password]
        if self.path == "/auth-do-sign-in" and right:
            self.answer(302, Location="/", Set_Cookie=f"user-id={self.cookie}; HttpOnly; Path=/")
        else:
            self.answer(302, Location="/auth-sign-in?error=1")

    def do_PUT(self):
        content = self.body()
        if not self.is_known() or not self.path.startswith("/files/"):
            self.answer(403)
            return
        with open("/" + self.path.removeprefix("/files/"), "wb") as file:
            file.write(content)
        self.answer(201)


def main():
    missing = [name for name in ("USERID", "GROUPID", "PASSWORD") if not os.environ.get(name)]
    if missing:
        sys.exit(f"{', '.join(missing)}: to be set in the environment of the container")
    user, group = int(os.environ["USERID"]), int(os.environ["GROUPID"])
    subprocess.run(["groupmod", "--non-unique", "--gid", str(group), "rstudio"], check=True)
    subprocess.run(["usermod", "--non-unique", "--uid", str(user), "rstudio"], check=True)
    Server.password = os.environ.pop("PASSWORD")
    os.chown("/home/rstudio", user, group)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8787), Server)
    os.setgroups([group])
    os.setgid(group)
    os.setuid(user)
    print("rserver: listening on port 8787", flush=True)
    server.serve_forever()


main()
