#!/usr/bin/env bash
# Several hosts on one: network namespaces joined by a switch, each with a name and an address of its own, for trying
# what happens between hosts where there is only one.
#
#   tools/hosts.sh up 3 [--rate 1gbit] [--retries 8]
#                                               makes h1, h2, h3 (needs root); --rate limits what each one sends,
#                                               --retries is their net.ipv4.tcp_retries2
#   tools/hosts.sh mpirun -n 4 --host h1:2,h2:2 lockstep train job.yaml
#                                               mpirun on h1; on the others it starts its daemons by this script, as it
#                                               would by ssh
#   tools/hosts.sh on h2 COMMAND...             a command on one of them
#   tools/hosts.sh cut h2 | tools/hosts.sh join h2
#                                               pulls the cable of a host, and plugs it in again
#   tools/hosts.sh down                         ends what runs on them and removes them
#
# LOCKSTEP_HOSTS names the group (default: lockstep), so that several can stand beside each other.
# The machine's CPUs are shared out to the hosts (in turn where there are fewer); files and memory are the machine's.
# Open MPI takes processes of different host names for processes of different hosts and speaks TCP between them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
group=${LOCKSTEP_HOSTS:-lockstep}
state=/run/lockstep-hosts/$group
switch=$group-switch

fail() {
  echo "tools/hosts.sh: $*" >&2
  exit 2
}

usage() {
  sed -n '2,/^set -e/{/^set -e/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit "$1"
}

names() { [[ -f $state/names ]] && cat "$state/names"; }

known() { names | grep -qx -- "$1" || fail "there is no host '$1'; up makes h1, h2, ..."; }

up() {
  local count=${1:-} rate='' retries=''
  [[ $count =~ ^[2-9]$ ]] || fail "up wants a number of hosts from 2 to 9"
  shift
  while (($#)); do
    case $1 in
      --rate) rate=${2:?--rate wants something like 1gbit} ;;
      --retries) retries=${2:?--retries wants a number} ;;
      *) fail "up does not know '$1'" ;;
    esac
    shift 2
  done
  [[ $EUID == 0 ]] || fail "network namespaces need root"
  [[ ! -d $state ]] || fail "the hosts of group '$group' stand already; take them down first"
  mkdir -p "$state"
  trap 'down' ERR
  echo "127.0.0.1 localhost" > "$state/hosts"
  ip netns add "$switch"
  ip netns exec "$switch" ip link add switch type bridge
  ip netns exec "$switch" ip link set switch up
  local i host space
  for ((i = 1; i <= count; ++i)); do
    host=h$i space=$group-h$i
    echo "$host" >> "$state/names"
    echo "10.77.0.$i $host" >> "$state/hosts"
    ip netns add "$space"
    ip -n "$space" link add eth0 type veth peer name "port$i" netns "$switch"
    ip -n "$switch" link set "port$i" master switch up
    ip -n "$space" link set lo up
    ip -n "$space" addr add "10.77.0.$i/24" dev eth0
    ip -n "$space" link set eth0 up
    if [[ -n $retries ]]; then
      ip netns exec "$space" sh -c "echo $retries > /proc/sys/net/ipv4/tcp_retries2"
    fi
    if [[ -n $rate ]]; then
      ip netns exec "$space" tc qdisc add dev eth0 root tbf rate "$rate" burst 256kb latency 50ms
    fi
  done
  trap - ERR
}

down() {
  local space
  for space in $(ip netns list | awk -v group="$group-" 'index($1, group) == 1 { print $1 }'); do
    ip netns pids "$space" | xargs -r kill -KILL 2> /dev/null || true
    ip netns del "$space"
  done
  rm -rf "$state"
}

# The CPUs of a host, as taskset takes them.
cpus() {
  local hosts all=$(nproc --all) number=${1#h}
  hosts=$(names | wc -l)
  if ((hosts > all)); then
    echo $(((number - 1) % all))
  else
    echo "$(((number - 1) * (all / hosts)))-$((number * (all / hosts) - 1))"
  fi
}

# A command in the network, under the name and with the address book of a host. No login: the environment stays.
on() {
  local host=$1
  shift
  exec nsenter --net="/run/netns/$group-$host" unshare --uts --mount taskset -c "$(cpus "$host")" sh -c '
    mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"' sh "$state/hosts" "$host" "$@"
}

case ${1:-} in
  up | down)
    "$@"
    ;;
  on)
    [[ $# -ge 3 ]] || usage 2
    known "$2"
    on "${@:2}"
    ;;
  # mpirun calls it so in place of ssh: the host, then words for a shell.
  --agent)
    known "$2"
    on "$2" sh -c "${*:3}"
    ;;
  cut | join)
    known "${2:-}"
    ip -n "$group-$2" link set eth0 "$([[ $1 == cut ]] && echo down || echo up)"
    ;;
  mpirun)
    [[ -d $state ]] || fail "no hosts stand; tools/hosts.sh up 2"
    # Hosts that share a CPU do not know of each other: a rank that waits by polling would keep the other from it.
    shared=()
    if (($(names | wc -l) > $(nproc --all))); then shared=(--mca mpi_yield_when_idle 1); fi
    on h1 env LOCKSTEP_HOSTS="$group" mpirun --mca plm_rsh_agent "$here/hosts.sh --agent" --mca btl_tcp_if_include eth0 \
      --mca oob_tcp_if_include eth0 --bind-to none "${shared[@]}" "${@:2}"
    ;;
  -h | --help)
    usage 0
    ;;
  *)
    usage 2
    ;;
esac
