// Working memory of kernels: aligned to cache lines, grown when needed, never cleared.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace longreach::simd {

// `thread_local Scratch<float> tile;` gives every thread a buffer that lives on between calls: for tiles of
// bounded size. Buffers that grow with T belong to one call: declare them there.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int64_t count) { get(count); }

  // At least `count` elements. A larger request than before loses the contents.
  T* get(int64_t count) {
    if (count > capacity_) {
      data_.reset();
      capacity_ = 0;
      data_.reset(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kAlignment)));
      capacity_ = count;
    }
    return data_.get();
  }
  T* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<T, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace longreach::simd
