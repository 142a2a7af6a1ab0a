// The machine under the program: its names, its memory, and how fast it multiplies matrices.
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

std::string cpu_name();         // "Intel(R) Xeon(R) ...", or the architecture when the system does not say
int64_t usable_cores();         // that this process may run on
int64_t total_memory_bytes();   // of the machine, or of the container's limit when that is less
int64_t resident_bytes();       // of this process, now
int64_t peak_resident_bytes();  // of this process, ever

enum class MatmulDtype { kFloat32, kBFloat16 };

// Floating-point operations a second of a large at::mm on the intra-op threads in use: the best of 0.3 s of
// products. The first call for a dtype and number of threads measures, later ones remember.
double measured_matmul_peak(MatmulDtype dtype);

}  // namespace longreach
