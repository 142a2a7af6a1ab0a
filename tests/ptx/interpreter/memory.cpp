// Global memory of the interpreter: buffers on the host with red zones, and the launch-wide record of who
// touched what.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {
namespace {

constexpr size_t kRedZone = 1024;
constexpr int kPoison = 0xff;  // NaN as any floating type

}  // namespace

Memory::Memory() = default;
Memory::~Memory() = default;
Memory::Memory(Memory&&) noexcept = default;
Memory& Memory::operator=(Memory&&) noexcept = default;

void* Memory::allocate(std::string name, size_t bytes, size_t alignment) {
  check<DataError>(alignment && !(alignment & (alignment - 1)), name, ": alignment ", alignment,
                   " is no power of two");
  const size_t step =
      std::max<size_t>(alignment, kPageBytes);  // so that no two buffers share a page of shadow
  const size_t padded = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  auto region = std::make_unique<Region>();
  const size_t total = padded + 2 * kRedZone + step;
  region->storage = std::make_unique<std::byte[]>(total);
  std::memset(region->storage.get(), kPoison, total);
  const uint64_t start = reinterpret_cast<uint64_t>(region->storage.get()) + kRedZone;
  region->data = reinterpret_cast<std::byte*>((start + step - 1) / step * step);
  region->name = std::move(name);
  region->bytes = bytes;
  region->written.assign(bytes, 0);
  const auto by_address = [](const Region* a, const Region* b) { return a->data < b->data; };
  sorted_.insert(std::upper_bound(sorted_.begin(), sorted_.end(), region.get(), by_address), region.get());
  regions_.push_back(std::move(region));
  return regions_.back()->data;
}

Region* Memory::find(uint64_t address) const {
  const auto after = std::upper_bound(sorted_.begin(), sorted_.end(), address,
                                      [](uint64_t a, const Region* r) { return a < r->begin(); });
  if (after != sorted_.begin()) {
    Region* before = after[-1];
    if (address < before->begin() + before->bytes + kRedZone) return before;
  }
  if (after != sorted_.end() && (*after)->begin() - address <= kRedZone) return *after;
  return nullptr;
}

void Memory::mark_written(const void* data, size_t bytes) {
  const auto address = reinterpret_cast<uint64_t>(data);
  Region* region = find(address);
  check<DataError>(region && address >= region->begin() && address + bytes <= region->begin() + region->bytes,
                   "not the address of a buffer of this memory");
  std::fill_n(region->written.begin() + static_cast<ptrdiff_t>(address - region->begin()), bytes, 1);
}

void Memory::require_written(const void* data, size_t bytes) const {
  const auto address = reinterpret_cast<uint64_t>(data);
  const Region* region = find(address);
  check<DataError>(region && address >= region->begin() && address + bytes <= region->begin() + region->bytes,
                   "not the address of a buffer of this memory, or longer than it");
  const size_t offset = address - region->begin();
  for (size_t i = offset; i < offset + bytes; ++i) {
    check<DataError>(region->written[i], region->name, ": byte ", i, " of ", region->bytes,
                     " was never written");
  }
}

namespace {

void commit_word(Block& block, Region& region, LaunchCell& cell, const Page& page, unsigned word,
                 size_t offset) {
  const uint32_t me = block.index + 1;
  const uint8_t touched = page.touched[word];
  if (cell.launch != block.context->launch_number) cell = {.launch = block.context->launch_number};
  const auto race = [&](uint32_t code, const char* what, uint32_t other, uint32_t other_code) {
    Warp at;
    at.block = &block;
    at.code = code;
    block.error(at, 0, what,
                text(" ", region.name, "[", offset, "], block ", other - 1,
                     " (the other access: ", location_text(*block.context->kernel, other_code), ")"));
  };
  const bool writes = touched & (kTouchedWrite | kTouchedAtomic), reads = touched & kTouchedRead;
  const bool atomic = writes && !(touched & kTouchedWrite);
  const WriteRecord& r = page.write[word];
  if (cell.writer && writes && (cell.write_bytes & r.bytes) && !(cell.atomic && atomic)) {
    race(page.write_code[word], "race between blocks: both write", cell.writer, cell.writer_code);
  } else if (cell.writer && reads && (cell.write_bytes & page.read_bytes[word])) {
    race(page.read_code[word], "race between blocks: reads what another block writes", cell.writer,
         cell.writer_code);
  } else if (cell.reader && writes && (cell.read_bytes & r.bytes)) {
    race(page.write_code[word], "race between blocks: writes what another block reads", cell.reader,
         cell.reader_code);
  }
  if (writes) {
    cell.atomic = atomic && (!cell.writer || cell.atomic);
    cell.writer = me;
    cell.writer_code = page.write_code[word];
    cell.write_bytes |= r.bytes;
  }
  if (reads) {
    cell.reader = me;
    cell.reader_code = page.read_code[word];
    cell.read_bytes |= page.read_bytes[word];
  }
}

}  // namespace

void commit_block(Block& block) {
  std::vector<uint64_t> keys;
  for (const auto& [key, place] : block.pages) keys.push_back(key);
  std::sort(keys.begin(), keys.end());  // reports do not depend on the hash
  for (const uint64_t key : keys) {
    const Block::CachedPage& place = block.pages[key];
    Region& region = *place.region;
    if (region.cells.empty()) region.cells.resize(region.bytes / 4 + 1);
    const size_t first = place.begin - region.begin();
    const size_t words = (place.end - place.begin + 3) / 4;
    for (size_t i = 0; i < words; ++i) {
      if (place.page->touched[i])
        commit_word(block, region, region.cells[first / 4 + i], *place.page, static_cast<unsigned>(i),
                    first + 4 * i);
    }
  }
  for (auto& page : block.used_pages) block.spare_pages.push_back(std::move(page));
  block.used_pages.clear();
  block.pages.clear();
  block.cache.fill({});
}

}  // namespace longreach::ptx
