// What the parser makes of a PTX module: kernels as arrays of decoded instructions. An instruction knows the
// function that executes it for a whole warp, so that running needs neither text nor a switch.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/ptx/interpreter/types.h"

namespace longreach::ptx {

struct Warp;
struct Instruction;

// What the warp does after an instruction.
enum class Step : uint8_t {
  next,   // goes on with the next instruction
  yield,  // goes on with the next one, once somebody wakes it
  retry,  // executes this one again, after others have run
  moved,  // the instruction has set the lanes' places itself
};

using Handler = Step (*)(Warp&, const Instruction&, uint32_t mask);

// 32 lanes of one register or constant, or one predicate (a mask of lanes).
struct Operand {
  enum Kind : uint8_t { kRegister, kConstant, kPredicate };
  Kind kind = kRegister;
  bool wide = false;     // 64 bits a lane
  bool negated = false;  // predicates alone
  bool present = false;
  uint32_t offset = 0;  // bytes into the warp's registers or the kernel's constants; index of a predicate
};

enum class Space : uint8_t { generic, global, shared, local, parameter };

// Whom an instruction waits for before it executes.
enum class Together : uint8_t {
  nobody,
  members,  // the lanes of its member mask, source[member]
  warp,     // all lanes that have not exited
};

struct Instruction {
  Handler handler = nullptr;
  int32_t guard = -1;  // index of the predicate
  bool guard_negated = false;
  bool branch = false;
  bool wgmma = false;
  Together together = Together::nobody;
  uint8_t member = 0;
  Type type = Type::none, type2 = Type::none;
  Space space = Space::generic;
  uint8_t flags = 0;      // the family's own
  uint8_t writes = 0;     // how many of `values`, from the first, it writes
  uint32_t target = 0;    // of a branch
  uint32_t location = 0;  // index into Kernel::locations
  uint32_t opcode = 0;    // index into Kernel::opcodes
  Operand destination, destination2;
  std::array<Operand, 6> source{};
  std::array<int64_t, 3> offset{};  // of addresses, or other immediates
  std::vector<Operand> values;      // brace lists
  std::vector<uint32_t> targets;    // of brx.idx
};

// Where an instruction comes from: the innermost line first, then where it was inlined.
struct SourceLine {
  std::string file;
  unsigned line = 0;
};
using Location = std::vector<SourceLine>;

struct Parameter {
  std::string name;
  size_t offset = 0, bytes = 0;
};

// A variable of the module that lives in global or constant memory, with its first contents.
struct GlobalVariable {
  std::string name;
  std::unique_ptr<std::byte[]> storage;
  std::byte* data = nullptr;
  size_t bytes = 0;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Location> locations;
  std::vector<std::string> opcodes;
  std::vector<Parameter> parameters;
  size_t parameter_bytes = 0;
  size_t register_bytes = 0;  // a warp
  std::vector<uint64_t> constants;
  std::vector<uint32_t> predicates;                                // first values
  std::vector<std::pair<Operand, std::string>> special_registers;  // %tid.x, ...
  uint32_t static_shared_bytes = 0;
  uint32_t local_bytes = 0;   // a thread
  bool uses_atomics = false;  // of global memory: blocks then run one after another
  bool uses_wgmma = false;
};

struct ModuleData {
  std::string file;
  std::map<std::string, Kernel> kernels;
  std::vector<GlobalVariable> variables;
};

// Where generic addresses of these spaces begin; host addresses lie far below.
inline constexpr uint64_t kSharedWindow = 1ull << 56, kLocalWindow = 2ull << 56,
                          kParameterWindow = 3ull << 56;
inline constexpr uint64_t kWindowMask = 0xffull << 56;

}  // namespace longreach::ptx
