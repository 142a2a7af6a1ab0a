// Counter-based randomness: every draw is a pure function of its coordinates, so the order of samples depends
// on the seed and the sample number alone and nothing has to be saved to resume.
#pragma once
#include <bit>
#include <cstdint>

namespace longreach::data {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that passes avalanche tests.
inline uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// 64 bits that depend on all three.
inline uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
  return mix(mix(mix(seed) ^ stream) ^ counter);
}

// `bits` scaled to [0, n), n >= 1.
inline uint64_t scale_to(uint64_t bits, uint64_t n) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * n) >> 64);
}

// A pseudo-random permutation of 0 .. size - 1, evaluated at one point in constant time and memory: a Feistel
// network over the next even power of two (at most 4 x size), walked until it falls inside.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
    const int bits = size > 1 ? 64 - std::countl_zero(size - 1) : 0;
    half_bits_ = (bits + 1) / 2;
  }

  uint64_t operator()(uint64_t index) const {
    if (size_ <= 1) return 0;
    do index = shuffle(index);
    while (index >= size_);
    return index;
  }

 private:
  uint64_t shuffle(uint64_t x) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = x >> half_bits_, right = x & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (random_bits(key_, round, right) & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  uint64_t size_, key_;
  int half_bits_;
};

}  // namespace longreach::data
