// Who this process is among the ranks of a job, by the environment variables of whoever started it: torchrun,
// `longreach launch`, mpirun, srun, or somebody by hand.
#pragma once
#include <functional>
#include <string>

namespace longreach {

struct Environment {
  int rank = 0, world = 1;
  // Among the ranks of this machine.
  int local_rank = 0, local_world = 1;
  // Where the rendezvous store is; empty and 0 where the world is one rank.
  std::string master_host;
  int master_port = 0;
  // How often the engine has started the job again.
  int restart = 0;
  // Somebody else (torchrun, `launch`) holds the store; else rank 0 must.
  bool store_is_held = false;
};

// The first of these that speaks:
//   RANK, WORLD_SIZE      torchrun, `longreach launch`, by hand
//   OMPI_COMM_WORLD_*     mpirun of Open MPI
//   SLURM_PROCID          srun, a step of several tasks; a batch script that calls the program itself is none
//   PMI_RANK, PMI_SIZE    mpirun of MPICH and its kin
// and one rank where none does. A variable that is empty counts as not set. MASTER_ADDR and MASTER_PORT are
// obeyed whatever the engine. Without them ranks of one machine meet at 127.0.0.1, those of a Slurm step at
// its first host, at a port made from the job's number (PMIX_NAMESPACE; SLURM_JOB_ID and SLURM_STEP_ID;
// PMI_JOBID), or torchrun's 29500 where the job has none. Throws ConfigError, which names the variable, what
// was found and what is expected.
Environment read_environment();
// The same of any variables: `variable` gives a value or null.
Environment read_environment(const std::function<const char*(const char*)>& variable);

}  // namespace longreach
