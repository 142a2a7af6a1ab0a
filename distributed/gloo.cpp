// The one file that includes c10d's Gloo. Its headers are Debian's, a little older than the library inside
// LibTorch; only pointers to its classes cross.
#include "distributed/gloo.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "distributed/lost_exchange.h"

namespace longreach {
namespace {

using std::chrono::milliseconds;

// What all groups of this rank have in common.
struct Transport {
  std::shared_ptr<Rendezvous> rendezvous;
  std::shared_ptr<::gloo::transport::Device> device;

  RankError lost(const std::string& label, const CommConfig& config, const std::string& why) const {
    return lost_exchange(*rendezvous, label, config, why);
  }
};

class GlooWork : public Exchange::Work {
 public:
  GlooWork(c10::intrusive_ptr<c10d::Work> work, std::vector<at::Tensor> tensors, std::string label,
           std::shared_ptr<const Transport> transport, const CommConfig& config)
      : work_(std::move(work)),
        tensors_(std::move(tensors)),
        label_(std::move(label)),
        transport_(std::move(transport)),
        config_(config) {}

  void wait() override {
    while (!ended_within(kLook))
      if (transport_->rendezvous->roll_is_called())
        throw transport_->lost(label_, config_, "another rank gave up");
    try {
      work_->wait();
    } catch (const std::exception& error) {
      throw transport_->lost(label_, config_, error.what());
    }
  }

 private:
  // The loss of a rank may be noticed by its neighbours alone, and the others wait for these.
  bool ended_within(milliseconds time) const {
    try {
      work_->wait(time);
    } catch (const std::exception&) {  // of the exchange, or of this wait
    }
    return work_->isCompleted();
  }

  c10::intrusive_ptr<c10d::Work> work_;
  std::vector<at::Tensor> tensors_;  // live as long as the exchange
  std::string label_;
  std::shared_ptr<const Transport> transport_;
  CommConfig config_;
};

class GlooCommunicator : public Communicator {
 public:
  // members: numbers of ranks in the world.
  GlooCommunicator(std::shared_ptr<const Transport> transport, std::vector<int> members, int rank,
                   const std::string& name, const CommConfig& config)
      : Communicator(config),
        transport_(std::move(transport)),
        members_(std::move(members)),
        rank_(rank),
        name_(name) {
    const auto options = c10d::ProcessGroupGloo::Options::create();
    options->timeout = config.timeout;
    options->threads = 2;
    options->devices.push_back(transport_->device);
    try {
      group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
          c10::make_intrusive<c10d::PrefixStore>(name, transport_->rendezvous->store()), rank_, size(),
          options);
    } catch (const std::exception& error) {
      throw transport_->lost(name, config, error.what());
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }

  std::shared_ptr<Communicator> split(const std::vector<int>& members) override {
    const int place = place_in(members);
    std::vector<int> in_world;
    std::vector<std::string> words;
    for (const int member : members) {
      in_world.push_back(members_[static_cast<size_t>(member)]);
      words.push_back(text(in_world.back()));
    }
    return std::make_shared<GlooCommunicator>(transport_, in_world, place,
                                              text(name_, "/", splits_++, "-", join(words, ".")), config());
  }

 private:
  template <class Start>
  std::unique_ptr<Exchange::Work> start(const std::string& label, std::vector<at::Tensor> tensors,
                                        const Start& start) {
    c10::intrusive_ptr<c10d::Work> work;
    try {
      work = start();
    } catch (const std::exception& error) {  // the group is lost already
      throw transport_->lost(label, config(), error.what());
    }
    return std::make_unique<GlooWork>(work, std::move(tensors), label, transport_, config());
  }

  std::unique_ptr<Exchange::Work> start_all_to_all(AllToAll exchange) override {
    return start(exchange.label, {exchange.out, exchange.in}, [&] {
      return group_->alltoall_base(exchange.out, exchange.in, exchange.out_rows, exchange.in_rows);
    });
  }

  std::unique_ptr<Exchange::Work> start_all_gather(AllGather exchange) override {
    at::Tensor out = exchange.out.view({-1}), in = exchange.in.view({-1});
    return start(exchange.label, {out, in}, [&] { return group_->_allgather_base(out, in); });
  }

  std::shared_ptr<const Transport> transport_;
  std::vector<int> members_;
  const int rank_;
  const std::string name_;
  int64_t splits_ = 0;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

}  // namespace

std::shared_ptr<Communicator> gloo_communicator(std::shared_ptr<Rendezvous> rendezvous,
                                                const CommConfig& config) {
  auto transport = std::make_shared<Transport>();
  transport->device = c10d::ProcessGroupGloo::createDeviceForHostname(rendezvous->own_address());
  transport->rendezvous = std::move(rendezvous);
  const Environment& environment = transport->rendezvous->environment();
  std::vector<int> all;
  for (int rank = 0; rank < environment.world; ++rank) all.push_back(rank);
  return std::make_shared<GlooCommunicator>(transport, all, environment.rank, "world", config);
}

}  // namespace longreach
