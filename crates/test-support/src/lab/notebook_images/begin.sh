# The beginning of the script of each image; it runs as root in a container of the image below.
set -eu
export DEBIAN_FRONTEND=noninteractive
# A proxy between here and PyPI may have certificates that only this machine knows.
if [ -s /mnt/ca-certificates.crt ]; then export PIP_CERT=/mnt/ca-certificates.crt; fi
packages() {
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "$@"
}
