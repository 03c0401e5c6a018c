# A plain JupyterLab, as many images have it: started by the image's command, without an entrypoint.
# sudo is for the image that behaves as docker-stacks does, which is made of this one.
packages python3 python3-venv sudo tini
# Whoever is of the group users may write to the home and to Python's packages, as in docker-stacks.
useradd --no-create-home --shell /bin/bash --uid 1000 --gid users jovyan
install --directory --owner=jovyan --group=users --mode=2775 /home/jovyan
install --directory --owner=jovyan --group=users --mode=2775 /opt/jupyter
# The versions of docker/notebook, whatever else it has beside them.
sed '/--hash/d; s/ *\\$//' /mnt/recipe/requirements.txt > /tmp/constraints.txt
setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/tmp sh -eu -c '
    umask 002
    python3 -m venv /opt/jupyter
    /opt/jupyter/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --constraint /tmp/constraints.txt \
        ipykernel jupyter-server-proxy jupyterhub jupyterlab setuptools
    # News are fetched from the Internet, and are offered in front of the page.
    mkdir -p /opt/jupyter/etc/jupyter/labconfig
    echo "{\"disabledExtensions\": {\"@jupyterlab/apputils-extension:announcements\": true}}" \
        > /opt/jupyter/etc/jupyter/labconfig/page_config.json
'
