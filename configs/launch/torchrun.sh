#!/bin/sh
# configs/launch/torchrun.sh RANKS CONFIG [--section.key value ...], with PyTorch's launcher. On several machines, on each:
# torchrun's --nnodes, --node-rank, --master-addr and --master-port. A rank has one thread, since torchrun sets OMP_NUM_THREADS,
# unless that is set before, or --training.threads asks for more.
ranks=$1
shift
exec torchrun --nproc-per-node "$ranks" --no-python "${LONGREACH:-longreach}" train "$@"
