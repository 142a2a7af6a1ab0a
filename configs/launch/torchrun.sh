#!/bin/sh
# configs/launch/torchrun.sh RANKS CONFIG [--section.key value ...], with PyTorch's launcher. On several machines, on each:
# torchrun's --nnodes, --node-rank, --master-addr and --master-port.
ranks=$1
shift
exec torchrun --nproc-per-node "$ranks" --no-python "${LONGREACH:-longreach}" train "$@"
