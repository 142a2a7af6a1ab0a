// Ranks with a CUDA device each, which exchange over NCCL. The class lies in the plug-in liblongreach_cuda.so
// (layers/ops/cuda/plugin), since NCCL comes with libtorch_cuda.so; this is what both sides know of it.
#pragma once
#include <memory>

#include "distributed/communicator.h"
#include "distributed/rendezvous.h"

namespace longreach {

// The group of all ranks of `host`, whose tensors on CUDA, those of this process' one device, go over NCCL
// and those on the CPU over `host`. Throws UserError where the plug-in was built without NCCL.
using MakeNcclCommunicator = Communicator* (*)(const std::shared_ptr<Rendezvous>& rendezvous,
                                               const Group& host, const CommConfig& config);
inline constexpr const char* kMakeNcclCommunicator = "longreach_make_nccl_communicator";

}  // namespace longreach
