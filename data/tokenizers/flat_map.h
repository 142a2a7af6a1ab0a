// An open-addressing hash map from 64-bit keys to 64-bit values: the merges of a byte-pair encoding and the
// edges of a trie, where std::unordered_map would take most of the time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace longreach::data {

class FlatMap {
 public:
  static constexpr uint64_t kAbsent = ~uint64_t{0};  // neither a key nor a value

  FlatMap() : slots_(16) {}

  void insert_or_assign(uint64_t key, uint64_t value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(key)];
    size_ += slot.key == kAbsent;
    slot = {key, value};
  }

  // The value, or kAbsent.
  uint64_t find(uint64_t key) const { return slots_[place(key)].value; }

  size_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key = kAbsent, value = kAbsent;
  };

  // Where the key stands, or the free slot where it would stand. At most half of the slots are taken.
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15u >> 20 & mask;
    while (slots_[at].key != key && slots_[at].key != kAbsent) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.key != kAbsent) slots_[place(slot.key)] = slot;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace longreach::data
