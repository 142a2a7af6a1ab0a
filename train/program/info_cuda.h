// `longreach info cuda`: registers, spills, shared memory, blocks a multiprocessor and tensor instructions of
// every CUDA kernel, and what its arithmetic and traffic would take at a device's published peaks. Needs no
// device.
#pragma once
#include <ostream>
#include <string>

namespace longreach {

// `table`: the text of layers/ops/cuda/static_report.h.
void print_static_report(const std::string& table, std::ostream& out);

}  // namespace longreach
