#include "distributed/agreement.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"

namespace longreach {
namespace {

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType dtype) {
  const at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, dtype);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<T>());
  return result;
}

// [ranks, values]
at::Tensor gather_tensor(Communicator& group, const at::Tensor& values, std::string_view label) {
  const at::Tensor all = at::empty({group.size(), values.numel()}, values.options());
  group.all_gather(all, values, label).wait();
  return all;
}

template <class T>
std::vector<T> sum_of(const Group& group, std::vector<T> values, at::ScalarType dtype,
                      std::string_view label) {
  if (!group || values.empty()) return values;
  const at::Tensor all = gather_tensor(*group, tensor_of(values, dtype), label);
  const T* row = all.const_data_ptr<T>();
  std::copy_n(row, values.size(), values.begin());
  for (int rank = 1; rank < group->size(); ++rank) {
    row += values.size();
    for (size_t i = 0; i < values.size(); ++i) values[i] += row[i];
  }
  return values;
}

// Lists of any length: their lengths first, then all at the longest.
template <class T, class List>
std::vector<List> gather_lists(const Group& group, const List& own, at::ScalarType dtype,
                               std::string_view label) {
  if (!group) return {own};
  const auto length = static_cast<int64_t>(own.size());
  const at::Tensor lengths = gather_tensor(*group, tensor_of<int64_t>({length}, at::kLong), label);
  const int64_t* of = lengths.const_data_ptr<int64_t>();
  const at::Tensor padded = at::zeros({*std::max_element(of, of + group->size())}, dtype);
  if (length > 0) std::memcpy(padded.mutable_data_ptr(), own.data(), static_cast<size_t>(length) * sizeof(T));
  const at::Tensor all = gather_tensor(*group, padded, label);
  std::vector<List> lists;
  for (int rank = 0; rank < group->size(); ++rank) {
    const T* begin = static_cast<const T*>(all.const_data_ptr()) + rank * padded.numel();
    lists.emplace_back(begin, begin + of[rank]);
  }
  return lists;
}

enum Progress : int64_t { kWorking, kDone, kUserError, kFailed };

constexpr std::chrono::milliseconds kBeat{500};

// Tells the others again and again that work goes on, so that they notice when this rank dies. until_all:
// also after stop(), until no rank works any more.
class Heart {
 public:
  Heart(const Group& group, bool until_all)
      : group_(group), until_all_(until_all), thread_([this] { beat(); }) {}

  // The error of a beat that found another rank gone.
  std::exception_ptr stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_one();
    thread_.join();
    return lost_;
  }

 private:
  void beat() {
    std::unique_lock lock(mutex_);
    try {
      while (!wake_.wait_for(lock, kBeat, [&] { return stopped_; })) smallest_over_ranks(kWorking);
      while (until_all_ && smallest_over_ranks(kDone) == kWorking) continue;
    } catch (...) {
      lost_ = std::current_exception();
    }
  }

  int64_t smallest_over_ranks(int64_t value) const { return -largest_over(group_, -value, "wait"); }

  Group group_;
  const bool until_all_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  std::exception_ptr lost_;
  std::thread thread_;  // last: it uses the others
};

struct Outcome {
  Progress progress = kDone;
  std::string message;
  std::exception_ptr error;
};

Outcome outcome_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const UserError& error) {
    return {kUserError, error.what(), std::current_exception()};
  } catch (const std::exception& error) {
    return {kFailed, error.what(), std::current_exception()};
  }
}

[[noreturn]] void throw_of(const std::string& message, int64_t progress) {
  if (progress == kUserError) throw UserError(message);
  throw RankError(message);
}

void work_for_all(const Group& group, const std::function<void()>& work) {
  Heart heart(group, false);
  const Outcome outcome = outcome_of(work);
  const std::exception_ptr lost = heart.stop();
  if (outcome.error && lost) std::rethrow_exception(outcome.error);
  if (lost) std::rethrow_exception(lost);
  largest_over(group, outcome.progress, "wait");
  if (!outcome.error) return;
  gather(group, outcome.message, "wait");
  std::rethrow_exception(outcome.error);
}

void wait_for_work(const Group& group) {
  int64_t progress = kWorking;
  while (progress == kWorking) progress = largest_over(group, kWorking, "wait");
  if (progress == kDone) return;
  throw_of("rank 0: " + gather(group, std::string(), "wait")[0], progress);
}

}  // namespace

std::vector<int64_t> sum_over(const Group& group, std::vector<int64_t> values, std::string_view label) {
  return sum_of(group, std::move(values), at::kLong, label);
}

std::vector<double> sum_over(const Group& group, std::vector<double> values, std::string_view label) {
  return sum_of(group, std::move(values), at::kDouble, label);
}

int64_t largest_over(const Group& group, int64_t value, std::string_view label) {
  if (!group) return value;
  const at::Tensor all = gather_tensor(*group, tensor_of<int64_t>({value}, at::kLong), label);
  const int64_t* of = all.const_data_ptr<int64_t>();
  return *std::max_element(of, of + group->size());
}

std::vector<std::vector<double>> gather(const Group& group, const std::vector<double>& values,
                                        std::string_view label) {
  return gather_lists<double>(group, values, at::kDouble, label);
}

std::vector<std::vector<int64_t>> gather(const Group& group, const std::vector<int64_t>& values,
                                         std::string_view label) {
  return gather_lists<int64_t>(group, values, at::kLong, label);
}

std::vector<std::string> gather(const Group& group, const std::string& value, std::string_view label) {
  return gather_lists<char>(group, value, at::kByte, label);
}

void on_first_rank(const Group& group, const std::function<void()>& work) {
  if (!group)
    work();
  else if (group->rank() == 0)
    work_for_all(group, work);
  else
    wait_for_work(group);
}

void on_every_rank(const Group& group, const std::function<void()>& work) {
  if (!group) return work();
  Heart heart(group, true);
  const Outcome own = outcome_of(work);
  const std::exception_ptr lost = heart.stop();
  if (own.error && lost) std::rethrow_exception(own.error);
  if (lost) std::rethrow_exception(lost);
  const auto progress = gather(group, std::vector<int64_t>{own.progress}, "wait");
  const auto failed =
      std::find_if(progress.begin(), progress.end(), [](const auto& of) { return of[0] != kDone; });
  if (failed == progress.end()) return;
  const auto messages = gather(group, own.message, "wait");
  if (own.error) std::rethrow_exception(own.error);
  const auto rank = static_cast<size_t>(failed - progress.begin());
  throw_of(text("rank ", rank, ": ", messages[rank]), progress[rank][0]);
}

}  // namespace longreach
