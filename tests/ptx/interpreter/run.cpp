// Runs a launch: checks that it fits the kernel, spreads blocks over host threads, and enters their results
// in the order of blocks, so that report and verdict do not depend on the threads.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {
namespace {

constexpr uint32_t kSharedLimit = 227 * 1024;  // of sm_90

// What cuTensorMapEncodeTiled would refuse.
void check_map(const std::string& kernel, const cuda::TensorMap& m) {
  check<DataError>(m.rank >= 1 && m.rank <= 5, kernel, ": tensor map of rank ", m.rank,
                   "; 1 to 5 are allowed");
  check<DataError>(reinterpret_cast<uint64_t>(m.data) % 16 == 0, kernel,
                   ": the data of a tensor map must be aligned to 16 bytes");
  const auto swizzle = m.swizzle_bytes;
  check<DataError>(swizzle == 0 || swizzle == 32 || swizzle == 64 || swizzle == 128, kernel,
                   ": tensor map with a swizzle of ", swizzle, " bytes; 0, 32, 64 and 128 are allowed");
  const uint32_t row = m.box[0] * m.element_bytes;
  check<DataError>(row % 16 == 0 && (!swizzle || row == swizzle), kernel, ": tensor map with box rows of ",
                   row, " bytes; a multiple of 16 is allowed, and with a swizzle its size");
  for (uint32_t k = 0; k < m.rank; ++k) {
    check<DataError>(m.box[k] >= 1 && m.box[k] <= 256 && m.size[k] >= 1, kernel,
                     ": tensor map with a box of ", m.box[k], " of ", m.size[k], " along dimension ", k,
                     "; 1 to 256 are allowed");
    check<DataError>(k == 0 || m.stride[k - 1] % 16 == 0, kernel, ": tensor map with a stride of ",
                     m.stride[k ? k - 1 : 0], " bytes; multiples of 16 are allowed");
  }
}

LaunchContext make_context(const Module& module, const cuda::Launch& launch, Memory& memory,
                           const Options& options) {
  static std::atomic<uint32_t> launches{0};
  const Kernel& kernel = module.kernel(launch.kernel);
  LaunchContext c{
      .kernel = &kernel, .module = &module.data(), .launch = &launch, .memory = &memory, .options = &options};
  c.launch_number = ++launches;
  c.threads = launch.block.x * launch.block.y * launch.block.z;
  c.warps = (c.threads + 31) / 32;
  const auto& grid = launch.grid;
  check<DataError>(c.threads >= 1 && c.threads <= 1024, launch.kernel, ": ", c.threads,
                   " threads a block; 1 to 1024 are allowed");
  check<DataError>(grid.x && grid.y && grid.z && grid.y <= 65535 && grid.z <= 65535, launch.kernel, ": grid ",
                   grid.x, "x", grid.y, "x", grid.z, "; 1 to 65535 are allowed along y and z");
  check<DataError>(launch.cluster == 1, launch.kernel, ": clusters of ", launch.cluster,
                   " blocks are not interpreted");
  check<DataError>(launch.parameters.size() == kernel.parameter_bytes, launch.kernel, ": ",
                   launch.parameters.size(), " bytes of parameters; the kernel takes ",
                   kernel.parameter_bytes);
  c.shared_bytes = kernel.static_shared_bytes + launch.shared_bytes;
  check<DataError>(c.shared_bytes <= kSharedLimit, launch.kernel, ": ", c.shared_bytes,
                   " bytes of shared memory; ", kSharedLimit, " are allowed");
  for (const cuda::TensorMapArgument& a : launch.tensor_maps) check_map(launch.kernel, a.map);
  c.parameters = launch.parameters;
  return c;
}

// Blocks in order, or in the order of a seed.
std::vector<uint32_t> block_order(const cuda::Dim3& grid, uint64_t schedule) {
  std::vector<uint32_t> order(size_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule) {
    std::minstd_rand random(static_cast<uint32_t>(schedule));
    std::shuffle(order.begin(), order.end(), random);
  }
  return order;
}

class LaunchRun {
 public:
  explicit LaunchRun(const LaunchContext& context)
      : context_(context), order_(block_order(context.launch->grid, context.options->schedule)) {
    executed_.resize(context.kernel->code.size());
    traffic_.resize(context.options->profile ? context.kernel->code.size() : 0);
  }

  void run() {
    size_t count = static_cast<size_t>(context_.options->threads);
    if (!count) count = std::max(1u, std::thread::hardware_concurrency());
    if (context_.kernel->uses_atomics) count = 1;
    count = std::min(count, order_.size());
    std::vector<std::thread> threads;
    for (size_t i = 1; i < count; ++i) threads.emplace_back([this] { work(); });
    work();
    for (std::thread& t : threads) t.join();
    if (failure_) std::rethrow_exception(failure_);
  }

  Report report() const {
    Report r;
    const Kernel& kernel = *context_.kernel;
    r.kernel = kernel.name;
    for (const auto& [key, e] : errors_.found()) {
      r.errors.push_back(text(kernel.name, ": ", location_text(kernel, e.code), ": block ", e.block, " warp ",
                              e.warp, e.lane < 32 ? text(" lane ", e.lane) : "", ": ", e.what,
                              e.count > 1 ? text(" (", e.count, " times)") : ""));
    }
    for (size_t i = 0; i < executed_.size(); ++i) {
      if (!executed_[i]) continue;
      r.instructions[kernel.opcodes[kernel.code[i].opcode]] += executed_[i];
      r.warp_instructions += executed_[i];
    }
    for (uint32_t i = 0; i < traffic_.size(); ++i) {
      const CodeTraffic& t = traffic_[i];
      if (!t.shared_ideal && !t.global_ideal) continue;
      LineTraffic& line = r.traffic[source_text(kernel, i)];
      line.shared_wavefronts += t.shared_wavefronts;
      line.shared_ideal += t.shared_ideal;
      line.global_sectors += t.global_sectors;
      line.global_ideal += t.global_ideal;
    }
    return r;
  }

 private:
  void work() {
    Block block;
    for (;;) {
      const size_t turn = next_++;
      if (turn >= order_.size()) break;
      try {
        prepare_block(block, context_, order_[turn]);
        run_block(block);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      enter(block, turn);
    }
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < block.executed.size(); ++i) executed_[i] += block.executed[i];
    for (size_t i = 0; i < block.traffic.size(); ++i) {
      traffic_[i].shared_wavefronts += block.traffic[i].shared_wavefronts;
      traffic_[i].shared_ideal += block.traffic[i].shared_ideal;
      traffic_[i].global_sectors += block.traffic[i].global_sectors;
      traffic_[i].global_ideal += block.traffic[i].global_ideal;
    }
  }

  void enter(Block& block, size_t turn) {
    std::unique_lock lock(mutex_);
    turned_.wait(lock, [&] { return entered_ == turn; });
    commit_block(block);
    errors_.merge(block.errors);
    block.errors.clear();
    ++entered_;
    turned_.notify_all();
  }

  const LaunchContext& context_;
  std::vector<uint32_t> order_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable turned_;
  size_t entered_ = 0;
  Errors errors_;
  std::vector<uint64_t> executed_;
  std::vector<CodeTraffic> traffic_;
  std::exception_ptr failure_;
};

}  // namespace

Report run(const Module& module, const cuda::Launch& launch, Memory& memory, const Options& options) {
  const LaunchContext context = make_context(module, launch, memory, options);
  LaunchRun all(context);
  all.run();
  return all.report();
}

void finish_warp_checks(Warp& w, uint32_t lanes) {
  const auto lane = static_cast<unsigned>(__builtin_ctz(lanes));
  bool copies = !w.open_copies.empty();
  for (const CopyGroup& g : w.copy_groups) copies = copies || ((g.lanes & lanes) && !g.copies.empty());
  if (copies) w.block->error(w, lane, "exits while a cp.async is in flight");
  bool stores = false;
  for (unsigned l = 0; l < 32; ++l) {
    if (lanes >> l & 1) stores = stores || !w.open_stores[l].empty() || !w.store_groups[l].empty();
  }
  if (stores) w.block->error(w, lane, "exits while a bulk store may still read shared memory");
  if (w.tiles_in_flight) w.block->error(w, lane, "exits while a wgmma is in flight");
}

}  // namespace longreach::ptx
