#include "distributed/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <future>
#include <mutex>

namespace longreach {
namespace {

// What the ranks of one group bring to one exchange.
struct Meeting {
  std::vector<at::Tensor> brought;  // of each rank; undefined: it has not come
  std::vector<Splits> rows;         // to each rank
  int came = 0, left = 0;
};

// Where the threads of one group meet. Exchanges are numbered; all ranks count alike.
class Hall {
 public:
  Hall(int size, const CommConfig& config) : size_(size), config_(config) {}

  int size() const { return size_; }

  void bring(int64_t number, int rank, const at::Tensor& tensor, const Splits& rows) {
    const std::lock_guard lock(mutex_);
    Meeting& meeting = meetings_[number];
    meeting.brought.resize(static_cast<size_t>(size_));
    meeting.rows.resize(static_cast<size_t>(size_));
    meeting.brought[static_cast<size_t>(rank)] = tensor.clone();
    meeting.rows[static_cast<size_t>(rank)] = rows;
    ++meeting.came;
    arrived_.notify_all();
  }

  template <class Take>
  void take(int64_t number, const std::string& label, const Take& take) {
    std::unique_lock lock(mutex_);
    Meeting& meeting = meetings_[number];
    arrived_.wait_for(lock, config_.timeout, [&] { return meeting.came == size_ || !lost_.empty(); });
    check<RankError>(meeting.came == size_, absent(meeting), " did not come to \"", label, "\"", lost_);
    take(meeting);
    if (++meeting.left == size_) meetings_.erase(number);
  }

  // Nobody waits any more; why, the first time.
  void lose(const std::string& why) {
    const std::lock_guard lock(mutex_);
    if (lost_.empty()) lost_ = why;
    for (const auto& [key, hall] : halls_) hall->lose(lost_);
    arrived_.notify_all();
  }

  // The one of the same members that ask for the same time.
  std::shared_ptr<Hall> split(const std::vector<int>& members, int64_t time) {
    const std::lock_guard lock(mutex_);
    auto& hall = halls_[{time, members}];
    if (!hall) hall = std::make_shared<Hall>(static_cast<int>(members.size()), config_);
    if (!lost_.empty()) hall->lose(lost_);
    return hall;
  }

 private:
  std::string absent(const Meeting& meeting) const {
    std::vector<int> ranks;
    for (size_t r = 0; r < meeting.brought.size(); ++r)
      if (!meeting.brought[r].defined()) ranks.push_back(static_cast<int>(r));
    return named_ranks(ranks);
  }

  const int size_;
  const CommConfig config_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<int64_t, Meeting> meetings_;
  std::map<std::pair<int64_t, std::vector<int>>, std::shared_ptr<Hall>> halls_;
  std::string lost_;
};

class ThreadWork : public Exchange::Work {
 public:
  explicit ThreadWork(std::function<void()> finish) : finish_(std::move(finish)) {}
  void wait() override { finish_(); }

 private:
  std::function<void()> finish_;
};

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Hall> hall, int rank, const CommConfig& config)
      : Communicator(config), hall_(std::move(hall)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return hall_->size(); }

  std::shared_ptr<Communicator> split(const std::vector<int>& members) override {
    const int place = place_in(members);
    return std::make_shared<ThreadCommunicator>(hall_->split(members, splits_++), place, config());
  }

 private:
  std::unique_ptr<Exchange::Work> start_all_to_all(AllToAll exchange) override {
    const int64_t number = exchanges_++;
    hall_->bring(number, rank_, exchange.in, exchange.in_rows);
    return std::make_unique<ThreadWork>([this, number, exchange] {
      hall_->take(number, exchange.label, [&](const Meeting& meeting) { receive(meeting, exchange); });
    });
  }

  void receive(const Meeting& meeting, const AllToAll& exchange) const {
    int64_t place = 0;
    for (size_t from = 0; from < meeting.brought.size(); ++from) {
      const Splits& rows = meeting.rows[from];
      const int64_t expected = exchange.out_rows[from], sent = rows[static_cast<size_t>(rank_)];
      check<RankError>(sent == expected, "\"", exchange.label, "\": rank ", from, " sends ", sent,
                       " rows to rank ", rank_, ", which expects ", expected);
      int64_t first = 0;
      for (int to = 0; to < rank_; ++to) first += rows[static_cast<size_t>(to)];
      exchange.out.narrow(0, place, expected).copy_(meeting.brought[from].narrow(0, first, expected));
      place += expected;
    }
  }

  std::unique_ptr<Exchange::Work> start_all_gather(AllGather exchange) override {
    const int64_t number = exchanges_++;
    hall_->bring(number, rank_, exchange.in, {});
    return std::make_unique<ThreadWork>([this, number, exchange] {
      hall_->take(number, exchange.label, [&](const Meeting& meeting) {
        const at::Tensor out = exchange.out.view({size(), exchange.in.numel()});
        for (int64_t from = 0; from < size(); ++from) {
          const at::Tensor& brought = meeting.brought[static_cast<size_t>(from)];
          check<RankError>(brought.numel() == exchange.in.numel(), "\"", exchange.label, "\": rank ", from,
                           " gathers ", brought.numel(), " elements, rank ", rank_, " ", exchange.in.numel());
          out[from].copy_(brought.reshape({-1}));
        }
      });
    });
  }

  std::shared_ptr<Hall> hall_;
  const int rank_;
  int64_t exchanges_ = 0, splits_ = 0;
};

}  // namespace

// The number of operators' threads counts for the thread that sets it; but a thread takes the last one that
// any thread has set when it is first asked for its own: by LibTorch, and once more by what is compiled of
// ATen/Parallel.h into this program.
std::thread start_thread(std::function<void()> body) {
  const int threads = at::get_num_threads();
  std::promise<void> begun;
  std::future<void> has_begun = begun.get_future();
  std::thread thread([body = std::move(body), begun = std::move(begun)]() mutable {
    (void)at::get_num_threads();
    at::internal::lazy_init_num_threads();
    at::set_num_threads(1);
    begun.set_value();
    body();
  });
  has_begun.wait();
  at::set_num_threads(threads);
  return thread;
}

void run_threads(int count, const std::function<void(int)>& body, const std::function<void(int)>& failed) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  const int before = at::get_num_threads();
  for (int number = 0; number < count; ++number)
    threads.push_back(start_thread([&, number] {
      try {
        body(number);
      } catch (...) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        if (failed) failed(number);
      }
    }));
  for (std::thread& thread : threads) thread.join();
  at::set_num_threads(before);
  if (first) std::rethrow_exception(first);
}

void run_ranks(int size, const std::function<void(const std::shared_ptr<Communicator>&)>& body,
               const CommConfig& config) {
  const auto hall = std::make_shared<Hall>(size, config);
  run_threads(
      size, [&](int rank) { body(std::make_shared<ThreadCommunicator>(hall, rank, config)); },
      [&](int rank) { hall->lose(text(" (rank ", rank, " has failed)")); });
}

}  // namespace longreach
