// Work space that tasks take and give back: there is as much of it as threads work at once, however many
// tasks there are, and memory is asked for once.
#pragma once
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace longreach {

template <class T>
class Spares {
 public:
  // One that was given back, with what its last user left in it, or make().
  template <class Make>
  std::unique_ptr<T> take(Make make) {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto spare = std::move(idle_.back());
        idle_.pop_back();
        return spare;
      }
    }
    return std::make_unique<T>(make());
  }
  void give_back(std::unique_ptr<T> spare) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(spare));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace longreach
