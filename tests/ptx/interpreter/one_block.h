// Runs PTX text written by a test as one block, for tests of single instructions.
#pragma once
#include <string>
#include <vector>

#include "tests/ptx/interpreter/interpreter.h"

namespace longreach::ptx {

// `body` between declarations of registers and the exit. It finds its lane in %lane, the block's thread in
// %thread, and global memory in %in and %out (64-bit addresses). Registers: %r<64> b32, %s<16> b16, %q<32>
// b64, %p<16> pred.
inline std::string module_text(const std::string& body, const std::string& declarations = "") {
  return ".version 8.0\n.target sm_90a\n.address_size 64\n" + declarations +
         "\n.visible .entry test(.param .u64 in, .param .u64 out)\n{\n"
         ".reg .b32 %r<64>;\n.reg .b32 %lane, %thread;\n.reg .b16 %s<16>;\n.reg .b64 %q<32>;\n.reg .b64 %in, "
         "%out;\n.reg .pred %p<16>;\n"
         "ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nmov.u32 %lane, %laneid;\nmov.u32 %thread, "
         "%tid.x;\n" +
         body + "\nret;\n}\n";
}

struct Result {
  Report report;
  std::vector<uint64_t> out;
};

inline Result run_text(const std::string& body, const std::vector<uint64_t>& in, size_t outputs,
                       uint32_t threads = 32, uint32_t shared_bytes = 0, const std::string& declarations = "",
                       Options options = {}, uint32_t blocks = 1) {
  struct Parameters {
    const uint64_t* in;
    uint64_t* out;
  };
  const Module module = Module::parse(module_text(body, declarations));
  Memory memory;
  const Parameters p{memory.upload("in", in), memory.upload("out", std::vector<uint64_t>(outputs, 0))};
  Result result;
  result.report =
      run(module, cuda::make_launch("test", {blocks}, {threads}, shared_bytes, p), memory, options);
  result.out = memory.download(p.out, outputs);
  return result;
}

inline bool mentions(const Report& report, const std::string& what) {
  for (const std::string& e : report.errors) {
    if (e.find(what) != std::string::npos) return true;
  }
  return false;
}

}  // namespace longreach::ptx
