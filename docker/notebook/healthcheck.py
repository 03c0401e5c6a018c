"""Ends with 0 if the Jupyter server of this container answers, whatever its port, base URL and protocol.

It takes them from the file that the server writes when it starts. Nothing but Python's own library is needed.
"""

import glob
import json
import os
import ssl
import sys
import urllib.request

#: Addresses that stand for all of a machine's.
ANY = ("", "*", "0.0.0.0", "::")


def newest(directory):
    """The server's file; one that was killed has left its own behind, where the home is kept."""
    return max(glob.glob(os.path.join(directory, "*server-*.json")), key=os.path.getmtime)


def runtime_directory():
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    data = os.environ.get("JUPYTER_DATA_DIR") or os.path.join(data, "jupyter")
    return os.environ.get("JUPYTER_RUNTIME_DIR") or os.path.join(data, "runtime")


def main():
    with open(newest(runtime_directory()), encoding="utf-8") as file:
        server = json.load(file)
    host = "127.0.0.1" if server["hostname"] in ANY else server["hostname"]
    url = f"http{'s' if server['secure'] else ''}://{host}:{server['port']}{server['base_url']}api"
    # The certificate is for the name by which a browser knows this server.
    context = ssl._create_unverified_context()
    # No proxy of the environment is asked.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=4) as answer:
        return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"the server does not answer: {error}")
