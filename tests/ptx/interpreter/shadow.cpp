#include "tests/ptx/interpreter/shadow.h"

#include "core/error.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {
namespace {

// Lane of a read that a whole warp makes at once (ldmatrix): no later write of the same warp can come before
// it.
constexpr unsigned kTogether = 62;

// What is wrong with touching bytes that `r` wrote; null when nothing is.
const char* clash_with_write(const Warp& warp, const WriteRecord& r, unsigned lane, uint8_t bytes,
                             AccessKind kind, bool same_instruction) {
  if (!r.time || !(r.bytes & bytes)) return nullptr;
  const bool reads = kind.access == Access::read;
  if (r.flags & kInFlight) {
    return reads ? "reads bytes that an unfinished cp.async writes"
                 : "writes bytes that an unfinished cp.async writes";
  }
  const bool both_atomic = (kind.access == Access::atomic || kind.strong) && (r.flags & kAtomic);
  if (both_atomic) return nullptr;
  if (r.agent != warp.index) {
    if (r.time > warp.knows.seen.time[r.agent]) {
      if (r.agent >= kWarps)
        return "touches bytes of a bulk copy whose mbarrier this warp has not waited for";
      return reads ? "race: reads what another warp writes" : "race: writes what another warp writes";
    }
  } else if (r.time >= warp.synchronized && (r.lane != lane || lane == kManyLanes) &&
             !(r.flags & kAsyncProxy)) {
    const bool same_store = !reads && same_instruction;
    if (!same_store && (lane == kManyLanes || !(r.flags & kMixedLanes))) {
      return reads ? "race: reads what another lane writes, no __syncwarp between"
                   : "race: writes what another lane writes, no __syncwarp between";
    }
  }
  if (kind.async && !(r.flags & kAsyncProxy) && r.time > warp.knows.fenced.time[r.agent]) {
    return "missing fence.proxy.async between an ordinary write and an asynchronous access";
  }
  return nullptr;
}

const char* clash_with_read(const Warp& warp, unsigned reader, uint32_t read, unsigned lane) {
  if (!read) return nullptr;
  if (read == kReading) return "writes bytes that wgmma or a bulk store may still read";
  if (reader != warp.index) {
    return read >> 6 > warp.knows.seen.time[reader] ? "race: writes what another warp reads" : nullptr;
  }
  if (read >> 6 < warp.synchronized || (read & 63) == lane || (read & 63) == kTogether) return nullptr;
  return "race: writes what another lane reads, no __syncwarp between";
}

const char* clash_with_reads(const Warp& warp, const Page& page, unsigned word, unsigned lane, uint8_t bytes,
                             unsigned warps) {
  for (unsigned r = 0; r < warps; ++r) {
    const char* what = clash_with_read(warp, r, page.reads[r * kPageWords + word], lane);
    if (what) return what;
    if (page.byte_reads.empty()) continue;
    for (unsigned b = 0; b < 4; ++b) {
      if (!(bytes >> b & 1)) continue;
      what = clash_with_read(warp, r, page.byte_reads[(r * kPageWords + word) * 4 + b], lane);
      if (what) return what;
    }
  }
  return nullptr;
}

void enter_write(const Warp& warp, Page& page, unsigned word, unsigned lane, uint8_t bytes, AccessKind kind) {
  WriteRecord& r = page.write[word];
  WriteRecord now{.time = warp.time(),
                  .agent = static_cast<uint8_t>(warp.index),
                  .lane = static_cast<uint8_t>(lane),
                  .bytes = bytes};
  if (kind.access == Access::atomic || kind.strong) now.flags |= kAtomic;
  if (kind.async) now.flags |= kAsyncProxy;
  if (kind.lasting) now.flags |= kInFlight;
  if (kind.agent >= kWarps) {
    now.agent = static_cast<uint8_t>(kind.agent);
    now.time = kind.time;
  } else if (bytes != 15 && r.time >= warp.synchronized && r.agent == now.agent &&
             r.flags == (now.flags | (r.flags & kMixedLanes))) {
    if (r.lane != now.lane) now.flags |= kMixedLanes;
    now.flags |= r.flags & kMixedLanes;
    now.bytes |= r.bytes;
  }
  r = now;
  page.write_code[word] = warp.code;
}

void enter_read_at(const Warp& warp, uint32_t& read, unsigned lane) {
  if (read == kReading) return;
  unsigned by = lane == kManyLanes ? kTogether : lane;
  if (read >> 6 >= warp.synchronized && read) {
    const unsigned before = read & 63;
    if (by == kTogether) {
      by = before;
    } else if (before != by && before != kTogether) {
      by = kManyLanes;
    }
  }
  read = warp.time() << 6 | by;
}

void enter_read(const Warp& warp, Page& page, unsigned word, unsigned lane, uint8_t bytes, AccessKind kind) {
  page.read_code[word] = warp.code;
  const size_t place = warp.index * kPageWords + word;
  if (kind.lasting) {
    page.reads[place] = kReading;
  } else if (bytes == 15) {
    enter_read_at(warp, page.reads[place], lane);
  } else {
    if (page.byte_reads.empty()) page.byte_reads.assign(page.reads.size() * 4, 0);
    for (unsigned b = 0; b < 4; ++b) {
      if (bytes >> b & 1) enter_read_at(warp, page.byte_reads[place * 4 + b], lane);
    }
  }
}

struct Clash {
  const char* what = nullptr;
  uint32_t other = 0;  // the instruction of the other access
};

Clash check_words(Warp& warp, Page& page, unsigned first, unsigned words, uint8_t bytes, unsigned lane,
                  AccessKind kind, unsigned warps) {
  Clash found;
  const char* what = nullptr;
  uint64_t before = 0;  // neighbours mostly have the same record: judge it once
  for (unsigned word = first; word < first + words; ++word) {
    const auto record = std::bit_cast<uint64_t>(page.write[word]);
    if (word == first || record != before) {
      what = clash_with_write(warp, page.write[word], lane, bytes, kind, page.write_code[word] == warp.code);
    }
    before = record;
    if (what) found = {what, page.write_code[word]};
    if (kind.access == Access::read) {
      enter_read(warp, page, word, lane, bytes, kind);
      continue;
    }
    const char* read = what ? nullptr : clash_with_reads(warp, page, word, lane, bytes, warps);
    if (read) found = {read, page.read_code[word]};
    enter_write(warp, page, word, lane, bytes, kind);
  }
  return found;
}

uint8_t byte_mask(uint64_t address, unsigned bytes) {
  return bytes >= 4 ? 15 : static_cast<uint8_t>(((1u << bytes) - 1) << (address & 3));
}

bool all_written(const uint8_t* flags, unsigned bytes) {
  if (bytes == 16) {
    std::array<uint64_t, 2> both;
    std::memcpy(both.data(), flags, 16);
    return (both[0] & both[1]) == 0x0101010101010101;
  }
  for (unsigned i = 0; i < bytes; ++i) {
    if (!flags[i]) return false;
  }
  return true;
}

std::string other_text(const Block& block, uint32_t code) {
  return " (the other access: " + location_text(*block.context->kernel, code) + ")";
}

}  // namespace

std::byte* Block::shared_access(Warp& warp, unsigned lane, uint32_t address, unsigned bytes,
                                AccessKind kind) {
  if (uint64_t{address} + bytes > shared.size()) {
    error(warp, lane, "out of bounds of shared memory",
          text(" at ", address, " + ", bytes, " of ", shared.size(), " bytes"));
    return nullptr;
  }
  if (address % bytes) {
    error(warp, lane, "misaligned address of shared memory", text(" ", address, " for ", bytes, " bytes"));
    return nullptr;
  }
  if (kind.access != Access::write && !all_written(&shared_written[address], bytes)) {
    error(warp, lane, "reads uninitialised shared memory", text(" at ", address));
  }
  const Clash clash =
      check_words(warp, shared_pages[address >> kPageShift], address % kPageBytes / 4,
                  std::max(1u, bytes / 4), byte_mask(address, bytes), lane, kind, context->warps);
  if (clash.what) error(warp, lane, clash.what, text(" at shared ", address, other_text(*this, clash.other)));
  if (kind.access != Access::read) std::memset(&shared_written[address], 1, bytes);
  return &shared[address];
}

std::byte* Block::global_access(Warp& warp, unsigned lane, uint64_t address, unsigned bytes,
                                AccessKind kind) {
  bool known = true;
  const CachedPage& place = global_page(address, known);
  if (!known || address < place.begin || address + bytes > place.end) {
    Region* near = context->memory->find(address);
    const std::string where = near ? text(" ", near->name, "[", static_cast<int64_t>(address - near->begin()),
                                          "] of ", near->bytes, " bytes")
                                   : "";
    error(warp, lane, "out of bounds of global memory", where);
    return nullptr;
  }
  const uint64_t offset = address - place.region->begin();
  if (address % bytes) {
    error(warp, lane, "misaligned address of global memory",
          text(" ", place.region->name, "[", offset, "] for ", bytes, " bytes"));
    return nullptr;
  }
  Region& region = *place.region;
  if (kind.access != Access::write && !all_written(&region.written[offset], bytes)) {
    error(warp, lane, "reads uninitialised global memory", text(" ", region.name, "[", offset, "]"));
  }
  const unsigned first = address % kPageBytes / 4, words = std::max(1u, bytes / 4);
  const Clash clash =
      check_words(warp, *place.page, first, words, byte_mask(address, bytes), lane, kind, context->warps);
  if (clash.what)
    error(warp, lane, clash.what,
          text(" at ", region.name, "[", offset, "]", other_text(*this, clash.other)));
  uint8_t touch = kind.access == Access::read    ? kTouchedRead
                  : kind.access == Access::write ? kTouchedWrite
                                                 : kTouchedAtomic;
  if (kind.strong) touch = kind.access == Access::read ? uint8_t{0} : uint8_t{kTouchedAtomic};
  for (unsigned i = first; i < first + words; ++i) {
    place.page->touched[i] |= touch;
    if (touch == kTouchedRead) place.page->read_bytes[i] |= byte_mask(address, bytes);
  }
  if (kind.access != Access::read) std::memset(&region.written[offset], 1, bytes);
  return reinterpret_cast<std::byte*>(address);
}

Block::CachedPage& Block::global_page(uint64_t address, bool& found) {
  const uint64_t key = address >> kPageShift;
  CachedPage& slot = cache[key % cache.size()];
  found = true;
  if (slot.key == key) return slot;
  const auto known = pages.find(key);
  if (known != pages.end()) return slot = known->second;
  Region* region = context->memory->find(address);
  if (!region || address < region->begin() || address >= region->begin() + region->bytes) {
    found = false;
    return slot;
  }
  if (spare_pages.empty()) spare_pages.push_back(std::make_unique<Page>());
  used_pages.push_back(std::move(spare_pages.back()));
  spare_pages.pop_back();
  used_pages.back()->reset(context->warps);
  const uint64_t begin = std::max(region->begin(), key << kPageShift);
  const uint64_t end = std::min(region->begin() + region->bytes, (key + 1) << kPageShift);
  return slot = pages[key] = {key, begin, end, region, used_pages.back().get()};
}

void Block::land_copy(Warp& warp, unsigned lane, uint32_t address, unsigned bytes) {
  Page& page = shared_pages[address >> kPageShift];
  for (unsigned word = address % kPageBytes / 4; word < address % kPageBytes / 4 + bytes / 4; ++word) {
    page.write[word] = {warp.time(), static_cast<uint8_t>(warp.index), static_cast<uint8_t>(lane), 15, 0};
  }
}

void Block::land_copy_on(unsigned agent, uint32_t time, uint32_t address, unsigned bytes) {
  Page& page = shared_pages[address >> kPageShift];
  for (unsigned word = address % kPageBytes / 4; word < address % kPageBytes / 4 + bytes / 4; ++word) {
    WriteRecord& r = page.write[word];
    r = {time, static_cast<uint8_t>(agent), 0, 15, static_cast<uint8_t>(r.flags & kAsyncProxy)};
  }
}

void Block::set_reads(Warp& warp, const SharedRange& range, uint32_t read) {
  for (uint32_t at = range.address / 4; at < (range.address + range.bytes + 3) / 4; ++at) {
    if (at * 4 >= shared.size()) return;
    shared_pages[at / kPageWords].reads[warp.index * kPageWords + at % kPageWords] = read;
  }
}

}  // namespace longreach::ptx
