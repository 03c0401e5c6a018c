#!/bin/sh
# The first process of a dock of the lab. What is specific to one dock is in /run/lab.
set -e
# Without --privileged, the kernel's settings are mounted read-only; dockerd turns on forwarding.
mount -o remount,rw /proc/sys
# Many kernels lack nftables' compatibility layer.
update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null
update-alternatives --set ip6tables /usr/sbin/ip6tables-legacy >/dev/null
mkdir -p /run/sshd
/usr/sbin/sshd
set -- dockerd --config-file /run/lab/daemon.json \
    --host unix:///var/run/docker.sock --host unix:///run/lab/docker.sock \
    --group "$LAB_GROUP" --mtu "$(cat /sys/class/net/eth0/mtu)"
test -n "$LAB_SUPERVISED" || exec "$@"
# The engine of a throwaway may end, and is started again as a service is, unless it is held.
while :; do
    "$@" || :
    while test -e /run/lab/held; do sleep 0.1; done
done
