#!/bin/bash
# engines.sh FOLDER COMMAND...: a Slurm of two nodes on this machine, all of it in FOLDER, for as long as COMMAND runs, which
# finds it by SLURM_CONF. No process of it is left when this ends: after COMMAND, by a signal, or with whoever called.
set -euo pipefail
[[ -n ${ENGINES_TIED:-} ]] || ENGINES_TIED=1 exec setpriv --pdeathsig TERM "$BASH" "$0" "$@"
unset ENGINES_TIED
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$1"
folder=$(realpath "$1") host=$(hostname) user=$(id -un) first_port=$((10000 + $$ % 3000 * 3))
shift
conf=$folder/slurm.conf

write_config() {
  head -c 128 /dev/urandom >"$folder/munge.key"
  chmod 400 "$folder/munge.key"
  mkdir -p "$folder"/{state,spool.n1,spool.n2}
  # Nothing that a container may lack: no cgroups, no pinning to cores, no accounting. Each node counts 4 cores, so that a
  # machine of two holds several jobs.
  cat >"$conf" <<CONF
ClusterName=longreach
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$first_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((first_port + 1)) CPUs=4
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((first_port + 2)) CPUs=4
PartitionName=all Nodes=n1,n2 Default=YES State=UP MaxTime=INFINITE
CONF
}

# start NAME COMMAND...: in the background, its output in a file.
start() {
  local name=$1
  shift
  "$@" </dev/null >"$folder/$name.out" 2>&1 &
}

# ours: the processes of this Slurm, jobs too, one a line; they alone have our SLURM_CONF.
ours() {
  grep -lszxF "SLURM_CONF=$conf" /proc/[0-9]*/environ | tr -dc '0-9\n' || true
}

# take_down: at once, since nothing here is worth saving; again, since one that is killed may just have started another.
take_down() {
  local left
  trap '' TERM INT HUP
  unset SLURM_CONF  # what looks for them is none of them
  disown -a         # and the shell need not say that they were killed
  for _ in {1..100}; do
    mapfile -t left < <(ours)
    ((${#left[@]})) || break
    kill -s KILL "${left[@]}" 2>/dev/null || true
    sleep 0.05
  done
}

write_config
export SLURM_CONF=$conf
trap take_down EXIT
trap 'exit 143' TERM INT HUP
start munged munged --force --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --num-threads=2
start slurmctld slurmctld -D
start slurmd.n1 slurmd -D -N n1
start slurmd.n2 slurmd -D -N n2
for _ in {1..300}; do
  [[ $(sinfo -h -t idle -o %D 2>/dev/null) != 2 ]] || break
  sleep 0.1
done
[[ $(sinfo -h -t idle -o %D) == 2 ]] || {
  echo "engines.sh: the two nodes of Slurm did not come up:" >&2
  tail -n 5 "$folder"/*.out "$folder"/*.log >&2
  exit 1
}
"$@" &
wait $!
