# What the images of docker-stacks do when they start, on top of a plain JupyterLab. Their own can't be pulled where the lab is.
for program in start.sh start-notebook.py start-notebook.sh start-singleuser.py; do
    install --mode=755 "/mnt/recipe/$program" "/usr/local/bin/$program"
done
mkdir -p /usr/local/bin/before-notebook.d /usr/local/bin/start-notebook.d
echo '{"ServerApp": {"ip": "", "open_browser": false}}' > /opt/jupyter/etc/jupyter/jupyter_server_config.json
# A user without a name gets one, if the container is started with the group root.
chmod g+w /etc/passwd
