// The machine under the program: its processor, its cores and its memory.
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

std::string cpu_name();  // "Intel(R) Xeon(R) ...", or the architecture when the system does not say
int64_t usable_cores();  // that this process may run on

// Those of the processor that kernels are written for.
struct InstructionSets {
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;

  std::string names() const;  // "avx2 avx512 ...", or "baseline"
};
InstructionSets instruction_sets();

int64_t total_memory_bytes();  // of the machine, or of the container's limit when that is less
// That this process may still take: what the machine can give without swapping others out, and swap, within
// the limits of its containers and of its address space. `root`: where /proc and /sys are sought, for tests.
int64_t available_memory_bytes(const std::string& root = "");
int64_t resident_bytes();       // of this process, now
int64_t peak_resident_bytes();  // of this process, ever

}  // namespace longreach
