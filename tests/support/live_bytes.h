// Bytes of the tensors that the process has made and that are still there.
#pragma once
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <atomic>
#include <cstdint>

namespace longreach::test {

// Made for the first time, it becomes the allocator of the CPU's tensors, whichever thread makes and frees
// them, to the process's end: tensors may outlive the counting.
class LiveBytes : public c10::Allocator {
 public:
  static LiveBytes& counted() {
    static LiveBytes allocator;
    return allocator;
  }

  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = behind_.allocate(bytes);
    add(static_cast<int64_t>(malloc_usable_size(data.get())));
    void* pointer = data.release_context();
    return {pointer, pointer, &free_counted, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_counted; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  int64_t now() const { return now_; }
  int64_t most() const { return most_; }
  void forget_most() { most_ = now_.load(); }

 private:
  LiveBytes() : behind_(*c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, /*priority=*/255); }

  static void free_counted(void* pointer) {
    counted().add(-static_cast<int64_t>(malloc_usable_size(pointer)));
    counted().behind_.raw_deleter()(pointer);
  }

  void add(int64_t bytes) {
    const int64_t sum = now_ += bytes;
    for (int64_t peak = most_; sum > peak && !most_.compare_exchange_weak(peak, sum);) {
    }
  }

  c10::Allocator& behind_;
  std::atomic<int64_t> now_ = 0, most_ = 0;
};

}  // namespace longreach::test
