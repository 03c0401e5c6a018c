# A desktop as images have it that show one in the browser: a VNC server, and its page behind jupyter-server-proxy.
packages perl tigervnc-standalone-server xterm xfonts-base
/opt/jupyter/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps jupyter-remote-desktop-proxy==3.0.1
install --mode=755 /mnt/recipe/xstartup /usr/local/bin/xstartup
