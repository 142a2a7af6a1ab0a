// The state of a block while it runs: warps with their registers, shared memory, barriers, what it has done
// to memory, and the errors found so far. Blocks share nothing but global memory.
#pragma once
#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/ptx/interpreter/instruction.h"
#include "tests/ptx/interpreter/interpreter.h"
#include "tests/ptx/interpreter/shadow.h"

namespace longreach::ptx {

// The last toucher of a word of global memory over all blocks of a launch, for races between blocks.
struct LaunchCell {
  uint32_t launch = 0;
  uint32_t writer = 0, reader = 0;  // block + 1
  uint32_t writer_code = 0, reader_code = 0;
  uint8_t write_bytes = 0, read_bytes = 0;
  bool atomic = false, many_readers = false;
};

struct Region {
  std::string name;
  std::unique_ptr<std::byte[]> storage;
  std::byte* data = nullptr;
  size_t bytes = 0;
  std::vector<uint8_t> written;  // one a byte
  std::vector<LaunchCell> cells;
  uint64_t begin() const { return reinterpret_cast<uint64_t>(data); }
};

struct Block;

// cp.async of one instruction: the lanes that have not been waited for and where they write in shared memory.
struct Copy {
  uint32_t lanes = 0;
  std::array<uint32_t, 32> address{};
  uint8_t bytes = 0;
};
struct CopyGroup {
  uint32_t lanes = 0;
  std::vector<Copy> copies;
};

struct SharedRange {
  uint32_t address = 0, bytes = 0;
};
// Asynchronous reads of shared memory that end at a wait: of wgmma (a warp) or of bulk stores (a lane).
struct ReadGroup {
  std::vector<SharedRange> ranges;
  uint32_t lane = 0;
};

struct PendingTile;  // a wgmma whose results have not been waited for

struct Warp {
  Block* block = nullptr;
  const Kernel* kernel = nullptr;
  unsigned index = 0;
  uint32_t existing = 0, live = 0;  // lanes
  bool diverged = false, blocked = false, finished = false;
  // The next collective instruction runs although lanes are missing; this has been reported
  bool forced = false;
  uint32_t parked = 0;                // lanes that wait for others of the warp
  uint32_t pc = 0;                    // while converged
  uint32_t code = 0;                  // of the instruction at work, for reports
  std::array<uint32_t, 32> places{};  // while diverged
  std::vector<uint64_t> registers;
  std::vector<uint32_t> predicates;
  std::vector<std::byte> local;  // local_bytes for each lane
  // setmaxnreg: registers of each thread, what the warp waits for (0: nothing), and what it has asked for so
  // far.
  uint32_t held_registers = 0, wanted_registers = 0;
  std::vector<uint32_t> register_changes;

  Knowledge knows;
  // Accesses of other lanes from this time on are not ordered before those of a lane
  uint32_t synchronized = 0;
  uint32_t time() const { return knows.seen.time[index]; }
  void tick() { ++knows.seen.time[index]; }
  void synchronize_lanes() {
    tick();
    synchronized = time();
  }

  // Ordinary atomics order memory only together with fences: what the last fence released, what they gathered
  // since.
  Knowledge released, gathered;

  std::vector<Copy> open_copies;
  std::deque<CopyGroup> copy_groups;
  std::array<std::vector<SharedRange>, 32> open_stores;
  std::array<std::deque<ReadGroup>, 32> store_groups;

  // wgmma: values that arrive at the wait, by register; open ones belong to the group that the next commit
  // makes.
  std::vector<std::shared_ptr<PendingTile>> open_tiles;
  std::deque<std::vector<std::shared_ptr<PendingTile>>> tile_groups;
  // By register / 128 bytes: when it was last written by anything but wgmma.
  std::vector<uint64_t> register_stamps;
  std::vector<uint32_t> register_users, register_readers;  // how many wgmma in flight write or read it
  uint64_t stamp = 1, fence_stamp = 0;
  unsigned tiles_in_flight = 0;
  size_t issued = 0;  // wgmma so far

  template <class T>
  const Storage<T>* lanes(const Operand& o) const {
    const auto* base = o.kind == Operand::kConstant ? kernel->constants.data() : registers.data();
    return reinterpret_cast<const Storage<T>*>(reinterpret_cast<const std::byte*>(base) + o.offset);
  }
  template <class T>
  Storage<T>* lanes(const Operand& o) {
    return reinterpret_cast<Storage<T>*>(reinterpret_cast<std::byte*>(registers.data()) + o.offset);
  }
  uint32_t predicate(const Operand& o) const { return predicates[o.offset] ^ (o.negated ? ~0u : 0u); }
  void set_predicate(const Operand& o, uint32_t mask, uint32_t value) {
    if (o.present) predicates[o.offset] = (predicates[o.offset] & ~mask) | (value & mask);
  }
  // A lane of a register of any width.
  uint64_t value(const Operand& o, unsigned lane) const {
    return o.wide ? lanes<uint64_t>(o)[lane] : lanes<uint32_t>(o)[lane];
  }
  void set_value(const Operand& o, unsigned lane, uint64_t value) {
    if (!o.present) return;
    if (o.wide) {
      lanes<uint64_t>(o)[lane] = value;
    } else {
      lanes<uint32_t>(o)[lane] = static_cast<uint32_t>(value);
    }
  }
};

struct WgmmaIssue {
  uint32_t code;
  uint64_t a, b;  // descriptors
};

struct Barrier {
  unsigned expected = 0, arrived = 0;  // threads
  Knowledge joined;
  std::vector<unsigned> waiting;      // warps
  std::vector<Operand> destinations;  // of barrier.red, by waiting warp
  unsigned count = 0, ballots = 0;    // of barrier.red: threads with a true predicate, threads asked
  uint32_t code = 0;
};

struct MBarrier {
  unsigned expected = 0, pending = 0, agent = 0;
  uint32_t phase = 0;
  int64_t bytes = 0;  // still to come
  Knowledge joined, completed;
  unsigned maker = 0;  // the warp that initialised it, and when
  uint32_t made = 0;
};

enum class Access : uint8_t { read, write, atomic };
struct AccessKind {
  Access access = Access::read;
  bool async = false;    // through the asynchronous proxy
  bool lasting = false;  // in flight until a wait: cp.async writes, wgmma's and bulk stores' reads
  bool strong = false;   // volatile, relaxed, acquire or release: no race with atomics
  unsigned agent = 0;    // >= kWarps: on behalf of this mbarrier, in its phase that ends at `time`
  uint32_t time = 0;
};

struct FoundError {
  std::string what;
  uint32_t code = 0;
  uint32_t block = 0;
  unsigned warp = 0, lane = 0;
  uint64_t count = 0;
};

// Errors of one kind at one instruction are counted; the first one is described.
class Errors {
 public:
  void add(std::string_view kind, std::string detail, uint32_t code, uint32_t block, unsigned warp,
           unsigned lane);
  void merge(const Errors& later);
  const std::map<std::pair<uint32_t, std::string>, FoundError>& found() const { return found_; }
  void clear() { found_.clear(); }

 private:
  std::map<std::pair<uint32_t, std::string>, FoundError> found_;
};

struct CodeTraffic {
  uint64_t shared_wavefronts = 0, shared_ideal = 0, global_sectors = 0, global_ideal = 0;
};

// What all blocks of a launch share and none changes.
struct LaunchContext {
  const Kernel* kernel = nullptr;
  const ModuleData* module = nullptr;
  const cuda::Launch* launch = nullptr;
  Memory* memory = nullptr;
  const Options* options = nullptr;
  std::vector<std::byte> parameters;
  uint32_t shared_bytes = 0;
  uint32_t launch_number = 0;
  unsigned threads = 0, warps = 0;
};

struct Block {
  const LaunchContext* context = nullptr;
  uint32_t index = 0;
  cuda::Dim3 position;
  std::vector<Warp> warps;
  std::vector<std::byte> shared;
  std::vector<uint8_t> shared_written;
  std::vector<Page> shared_pages;
  std::array<Barrier, 16> barriers;
  std::map<uint32_t, MBarrier> mbarriers;
  unsigned agents = kWarps;
  uint32_t free_registers = 0;  // of the block's: what setmaxnreg.dec has given back
  std::array<std::vector<WgmmaIssue>, kWarps / 4> issued;  // by warpgroup
  std::unordered_map<uint64_t, Knowledge> atomics;         // what atomics at an address have released
  Errors errors;
  std::vector<uint64_t> executed;  // by instruction
  std::vector<CodeTraffic> traffic;
  uint64_t instructions = 0;
  std::minstd_rand random;

  // Pages of global memory that this block has touched.
  struct CachedPage {
    uint64_t key = ~0ull;
    uint64_t begin = 0, end = 0;
    Region* region = nullptr;
    Page* page = nullptr;
  };
  std::array<CachedPage, 64> cache;
  std::unordered_map<uint64_t, CachedPage> pages;
  std::vector<std::unique_ptr<Page>> spare_pages;
  std::vector<std::unique_ptr<Page>> used_pages;

  void error(const Warp& warp, unsigned lane, std::string_view kind, std::string detail = "");

  // Checks an access of one lane (kManyLanes: of the warp as one) and enters it into the shadow. `bytes` is a
  // power of two up to 16. Addresses of shared memory are offsets.
  std::byte* shared_access(Warp& warp, unsigned lane, uint32_t address, unsigned bytes, AccessKind kind);
  std::byte* global_access(Warp& warp, unsigned lane, uint64_t address, unsigned bytes, AccessKind kind);

  // Ends of asynchronous accesses to shared memory.
  void land_copy(Warp& warp, unsigned lane, uint32_t address, unsigned bytes);
  void land_copy_on(unsigned agent, uint32_t time, uint32_t address, unsigned bytes);
  void set_reads(Warp& warp, const SharedRange& range, uint32_t read);

  void count_shared(const Warp& warp, const std::array<uint64_t, 32>& address, uint32_t mask, unsigned bytes);
  void count_global(const Warp& warp, const std::array<uint64_t, 32>& address, uint32_t mask, unsigned bytes);

  CachedPage& global_page(uint64_t address, bool& found);
};

// Runs one block to its end.
void prepare_block(Block& block, const LaunchContext& context, uint32_t index);
void run_block(Block& block);
// Enters what the block did to global memory into the launch's cells and reports races with the blocks
// entered before.
void commit_block(Block& block);
// Kernels with wgmma: reports registers that are touched before their wgmma was waited for; notes what was
// written when.
void check_registers_in_flight(Warp& warp, const Instruction& instruction);
void stamp_registers(Warp& warp, const Instruction& instruction);
void finish_warp_checks(Warp& warp, uint32_t lanes);  // in-flight work at exit
// Registers at the start of a block, and at its end whether the warps of each warpgroup changed them alike
// (setmaxnreg).
void prepare_registers(Block& block);
void check_register_changes(Block& block);

std::string source_text(const Kernel& kernel, uint32_t code);    // "FILE.cu:12, inlined at ..."
std::string location_text(const Kernel& kernel, uint32_t code);  // with the opcode

}  // namespace longreach::ptx
