// What the compilers say about a kernel, without a device: registers, spills and static shared memory from
// ptxas' report (`ptxas -v`), tensor instructions of the main loop and narrow accesses from the PTX. The
// build writes one line a kernel and architecture into a table that the plug-in carries; `longreach info
// cuda` prints it, a test holds it to limits.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longreach::cuda {

// One kernel as ptxas compiled it for one architecture. Bytes of stack and spills are a thread's, of shared
// memory a block's.
struct Resources {
  std::string kernel, arch;  // "sm_80"
  int64_t registers = 0, stack = 0, spill_stores = 0, spill_loads = 0, static_shared = 0;
};

// Reads the text of `ptxas -v`. Throws DataError where a kernel's registers or spills are not said. `name`:
// for errors.
std::vector<Resources> parse_ptxas(std::string_view text, const std::string& name);

// One kernel as nvcc wrote it. Instructions are counted where they stand, not how often they run.
struct Code {
  std::string kernel;
  int64_t tensor = 0;  // mma and wgmma
  // The loop (from a label to a branch back to it) with the most tensor instructions, the shortest one of
  // equals. Without such a loop a kernel is one pass: all of it counts.
  int64_t loop_tensor = 0, loop_instructions = 0;
  // Accesses to global memory of a lane, cp.async among the loads: of 16 bytes, and of fewer.
  int64_t wide_loads = 0, narrow_loads = 0, wide_stores = 0, narrow_stores = 0;
};

std::vector<Code> parse_ptx(std::string_view text);

struct StaticRow {
  Resources resources;
  Code code;
};

// Every kernel of `resources` with its code; DataError where the PTX lacks it.
std::vector<StaticRow> join_reports(const std::vector<Resources>& resources, const std::vector<Code>& code,
                                    const std::string& name);

// The table as text, one row a line, and back. read_table throws DataError that names the line.
std::string write_table(const std::vector<StaticRow>& rows);
std::vector<StaticRow> read_table(std::string_view text, const std::string& name);

}  // namespace longreach::cuda
