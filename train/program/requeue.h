// A run inside a batch job of Slurm: `sbatch --signal=USR1@SECONDS --requeue` warns the ranks before the time
// is over. They save, and the first of them puts the job back into the queue, to go on from there.
#pragma once
#include <string>

namespace longreach {

// "12, started again 1 time": of SLURM_JOB_ID and SLURM_RESTART_COUNT; empty outside Slurm.
std::string slurm_job();

// `scontrol requeue` of this job, with one line that says so. Slurm decides whether the job may: one that was
// submitted with --no-requeue, or is no batch job, is refused, and that is a warning. Nothing outside Slurm.
void requeue_slurm_job();

}  // namespace longreach
