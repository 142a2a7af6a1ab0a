// Beside the full LibTorch set-up: ranks with a device each, over c10d's NCCL. What its watchdog would do to
// a process that has lost a rank, end it, is left to whoever waits, who says which rank it was.
#include "distributed/nccl.h"

#include <chrono>
#include <cstdlib>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "core/error.h"
#include "distributed/lost_exchange.h"

namespace longreach {
namespace {

using Clock = std::chrono::steady_clock;
using NcclGroup = c10::intrusive_ptr<c10d::ProcessGroupNCCL>;

// How long a rank sleeps between two looks at the device.
constexpr std::chrono::microseconds kPause{20};

// An exchange of the group on the CPU, which counts and waits as ever.
class HostWork : public Exchange::Work {
 public:
  explicit HostWork(Exchange exchange) : exchange_(std::move(exchange)) {}
  void wait() override { exchange_.wait(); }

 private:
  Exchange exchange_;
};

// Nothing was to be sent.
class NoWork : public Exchange::Work {
 public:
  void wait() override {}
};

class NcclWork : public Exchange::Work {
 public:
  NcclWork(NcclGroup group, c10::intrusive_ptr<c10d::Work> work, std::vector<at::Tensor> tensors,
           std::string label, std::shared_ptr<Rendezvous> rendezvous, const CommConfig& config)
      : group_(std::move(group)),
        work_(std::move(work)),
        tensors_(std::move(tensors)),
        label_(std::move(label)),
        rendezvous_(std::move(rendezvous)),
        config_(config) {}

  // The host waits too: who is lost is known to the exchange that missed it, and no later one begins.
  void wait() override {
    try {
      wait_for_device();
      work_->synchronize();  // what the current stream does next
    } catch (const RankError&) {
      throw;
    } catch (const std::exception& error) {
      give_up(error.what());
    }
  }

 private:
  void wait_for_device() {
    const auto end = Clock::now() + config_.timeout;
    auto look = Clock::now() + kLook;
    while (!work_->isCompleted()) {
      const auto now = Clock::now();
      if (now > end) give_up("timed out");
      if (now > look) {
        if (rendezvous_->roll_is_called()) give_up("another rank gave up");
        look = now + kLook;
      }
      std::this_thread::sleep_for(kPause);
    }
    if (const std::exception_ptr error = work_->exception()) std::rethrow_exception(error);
  }

  // Kernels that wait for a lost rank would keep the device, and the process, for ever.
  [[noreturn]] void give_up(const std::string& why) {
    const RankError error = lost_exchange(*rendezvous_, label_, config_, why);
    try {
      group_->abort();
    } catch (const std::exception&) {  // it is of no use any more
    }
    throw error;
  }

  NcclGroup group_;
  c10::intrusive_ptr<c10d::Work> work_;
  std::vector<at::Tensor> tensors_;  // live as long as the exchange
  std::string label_;
  std::shared_ptr<Rendezvous> rendezvous_;
  CommConfig config_;
};

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<Rendezvous> rendezvous, Group host, std::string name,
                   const CommConfig& config)
      : Communicator(config),
        rendezvous_(std::move(rendezvous)),
        host_(std::move(host)),
        name_(std::move(name)) {
    const auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = config.timeout;
    try {
      group_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(
          c10::make_intrusive<c10d::PrefixStore>(name_, rendezvous_->store()), rank(), size(), options);
    } catch (const std::exception& error) {
      throw lost_exchange(*rendezvous_, name_, config, error.what());
    }
  }

  ~NcclCommunicator() override {
    try {
      group_->shutdown();
    } catch (const std::exception&) {  // who needed it has been told
    }
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }

  std::shared_ptr<Communicator> split(const std::vector<int>& members) override {
    std::vector<std::string> words;
    for (const int member : members) words.push_back(text(member));
    return std::make_shared<NcclCommunicator>(rendezvous_, host_->split(members),
                                              text(name_, "/", splits_++, "-", join(words, ".")), config());
  }

 private:
  template <class Start>
  std::unique_ptr<Exchange::Work> start(const std::string& label, std::vector<at::Tensor> tensors,
                                        const Start& start) {
    c10::intrusive_ptr<c10d::Work> work;
    try {
      work = start();
    } catch (const std::exception& error) {
      throw lost_exchange(*rendezvous_, label, config(), error.what());
    }
    return std::make_unique<NcclWork>(group_, work, std::move(tensors), label, rendezvous_, config());
  }

  std::unique_ptr<Exchange::Work> start_all_to_all(AllToAll exchange) override {
    if (!exchange.in.is_cuda())
      return std::make_unique<HostWork>(
          host_->all_to_all(exchange.out, exchange.in, exchange.out_rows, exchange.in_rows, exchange.label));
    return start(exchange.label, {exchange.out, exchange.in}, [&] {
      return group_->alltoall_base(exchange.out, exchange.in, exchange.out_rows, exchange.in_rows);
    });
  }

  std::unique_ptr<Exchange::Work> start_all_gather(AllGather exchange) override {
    if (!exchange.in.is_cuda())
      return std::make_unique<HostWork>(host_->all_gather(exchange.out, exchange.in, exchange.label));
    if (exchange.in.numel() == 0) return std::make_unique<NoWork>();  // of all ranks
    at::Tensor out = exchange.out.view({-1}), in = exchange.in.view({-1});
    return start(exchange.label, {out, in}, [&] { return group_->_allgather_base(out, in); });
  }

  std::shared_ptr<Rendezvous> rendezvous_;
  Group host_;
  const std::string name_;
  int64_t splits_ = 0;
  NcclGroup group_;
};

}  // namespace
}  // namespace longreach

extern "C" __attribute__((visibility("default"))) longreach::Communicator* longreach_make_nccl_communicator(
    const std::shared_ptr<longreach::Rendezvous>& rendezvous, const longreach::Group& host,
    const longreach::CommConfig& config) {
  // c10d reads these when a group is made: no thread of its own may end the process.
  setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 1);
  setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 1);
  return new longreach::NcclCommunicator(rendezvous, host, "nccl", config);
}
