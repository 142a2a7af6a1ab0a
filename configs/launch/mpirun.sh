#!/bin/sh
# configs/launch/mpirun.sh RANKS CONFIG [--section.key value ...], with Open MPI. On several machines: MASTER_ADDR=HOST, the
# host of rank 0, in the environment, and mpirun's --hostfile.
ranks=$1
shift
# Bound to one core, as mpirun does by itself, all threads of a rank would share it.
exec mpirun -n "$ranks" --bind-to none ${MASTER_ADDR:+-x MASTER_ADDR} "${LONGREACH:-longreach}" train "$@"
