// Errors and traffic: collected by block, put together in the order of blocks, told with source lines.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {
namespace {

std::string ratio_text(uint64_t found, uint64_t ideal) {
  const uint64_t hundredths = ideal ? found * 100 / ideal : 100;
  return text(found, " of at best ", ideal, " (", hundredths / 100, ".", hundredths / 10 % 10,
              hundredths % 10, "x)");
}

}  // namespace

void Errors::add(std::string_view kind, std::string detail, uint32_t code, uint32_t block, unsigned warp,
                 unsigned lane) {
  FoundError& e = found_[{code, std::string(kind)}];
  if (!e.count++)
    e = {.what = text(kind, detail), .code = code, .block = block, .warp = warp, .lane = lane, .count = 1};
}

void Errors::merge(const Errors& later) {
  for (const auto& [key, error] : later.found_) {
    const auto [place, fresh] = found_.try_emplace(key, error);
    if (!fresh) place->second.count += error.count;
  }
}

void Block::error(const Warp& warp, unsigned lane, std::string_view kind, std::string detail) {
  errors.add(kind, std::move(detail), warp.code, index, warp.index, lane);
}

void Block::count_shared(const Warp& warp, const std::array<uint64_t, 32>& address, uint32_t mask,
                         unsigned bytes) {
  const unsigned at_once = std::min(32u, 128 / bytes), words = std::max(1u, bytes / 4);
  CodeTraffic& t = traffic[warp.code];
  for (unsigned first = 0; first < 32; first += at_once) {
    std::array<uint32_t, 128> found;
    size_t count = 0;
    for (unsigned l = first; l < first + at_once; ++l) {
      if (!(mask >> l & 1)) continue;
      for (unsigned k = 0; k < words; ++k) found[count++] = static_cast<uint32_t>(address[l]) / 4 + k;
    }
    if (!count) continue;
    std::sort(found.begin(), found.begin() + count);
    count = static_cast<size_t>(std::unique(found.begin(), found.begin() + count) - found.begin());
    std::array<unsigned, 32> banks{};
    for (size_t k = 0; k < count; ++k) ++banks[found[k] % 32];
    t.shared_wavefronts += *std::max_element(banks.begin(), banks.end());
    ++t.shared_ideal;
  }
}

void Block::count_global(const Warp& warp, const std::array<uint64_t, 32>& address, uint32_t mask,
                         unsigned bytes) {
  std::vector<uint64_t> pieces, sectors;  // 2-byte pieces: distinct ones are what the warp needs
  const unsigned piece = std::min(bytes, 4u);
  for (unsigned l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    for (unsigned k = 0; k < bytes; k += piece) {
      pieces.push_back((address[l] + k) / piece);
      sectors.push_back((address[l] + k) / 32);
    }
  }
  const auto distinct = [](std::vector<uint64_t>& v) {
    std::sort(v.begin(), v.end());
    return static_cast<uint64_t>(std::unique(v.begin(), v.end()) - v.begin());
  };
  CodeTraffic& t = traffic[warp.code];
  t.global_sectors += distinct(sectors);
  t.global_ideal += (distinct(pieces) * piece + 31) / 32;
}

double Report::shared_wavefront_ratio() const {
  uint64_t found = 0, ideal = 0;
  for (const auto& [line, t] : traffic) {
    found += t.shared_wavefronts;
    ideal += t.shared_ideal;
  }
  return ideal ? static_cast<double>(found) / static_cast<double>(ideal) : 1;
}

double Report::sector_ratio() const {
  uint64_t found = 0, ideal = 0;
  for (const auto& [line, t] : traffic) {
    found += t.global_sectors;
    ideal += t.global_ideal;
  }
  return ideal ? static_cast<double>(found) / static_cast<double>(ideal) : 1;
}

std::string Report::text() const {
  std::string all = longreach::text(kernel, ": ", warp_instructions, " warp instructions, ", errors.size(),
                                    " kinds of errors\n");
  for (const std::string& e : errors) all += e + "\n";
  for (const auto& [line, t] : traffic) {
    if (t.shared_ideal)
      all += longreach::text("  ", line, ": shared wavefronts ",
                             ratio_text(t.shared_wavefronts, t.shared_ideal), "\n");
    if (t.global_ideal)
      all += longreach::text("  ", line, ": global sectors ", ratio_text(t.global_sectors, t.global_ideal),
                             "\n");
  }
  return all;
}

}  // namespace longreach::ptx
