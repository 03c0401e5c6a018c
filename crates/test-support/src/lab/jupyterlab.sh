# Installs JupyterLab in a place of which no tool and no PATH knows. stdin: the certificates that this machine trusts, as a proxy
# between here and PyPI may have one of its own.
set -eu
export DEBIAN_FRONTEND=noninteractive PIP_CERT=/tmp/certificates-of-the-lab.crt
cat > "$PIP_CERT"
if test -e /opt/jupyter/ready; then exit 0; fi
apt-get update --quiet
apt-get install --yes --quiet --no-install-recommends python3 python3-venv
python3 -m venv /opt/jupyter
/opt/jupyter/bin/pip install --quiet --disable-pip-version-check jupyterlab==4.4.10
touch /opt/jupyter/ready
