// Chunks by pread, unpacked by zlib; the HDF5 library reads only what is too large to list.
#include "data/corpora/store_column.h"

#include <xxhash.h>
#include <zlib.h>

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace longreach::data {

StoreColumn::StoreColumn(const PositionedFile& file, const char* name, ColumnLayout layout,
                         std::vector<uint64_t> sums)
    : file_(file), name_(name), layout_(std::move(layout)), sums_(std::move(sums)) {
  compared_ = std::make_unique<std::atomic<bool>[]>(sums_.size());
  if (!layout_.chunks.empty() || layout_.length == 0) return;
  const h5::Lock lock;
  handle_ = h5::open_file(file_.path());
  dataset_ = h5::open_dataset(handle_, file_.path(), name_);
}

int64_t StoreColumn::elements_of(int64_t number) const {
  return std::min(layout_.chunk, layout_.length - number * layout_.chunk);
}

void StoreColumn::unpack(const h5::Chunk& chunk, Bytes& out) const {
  Bytes packed(static_cast<size_t>(chunk.bytes)),
      all(static_cast<size_t>(layout_.chunk * layout_.element_size));
  file_.read(chunk.place, packed.data(), chunk.bytes);
  uLongf size = all.size();
  const int result = ::uncompress(reinterpret_cast<Bytef*>(all.data()), &size,
                                  reinterpret_cast<const Bytef*>(packed.data()), packed.size());
  check<DamagedFile>(result == Z_OK && size == all.size(), file_.path(), ": a chunk of `", name_,
                     "` cannot be unpacked; the file is damaged");
  std::copy_n(all.begin(), out.size(), out.begin());
}

// From a chunk that is not packed.
void StoreColumn::read_stored(int64_t number, int64_t inside, int64_t count, char* out) const {
  if (handle_) {
    const h5::Lock lock;
    const hid_t types[] = {H5T_STD_U8LE, H5T_STD_U16LE, H5T_STD_U32LE, H5T_STD_U64LE};
    const auto type = std::countr_zero(static_cast<uint64_t>(layout_.element_size));
    return h5::read(dataset_, file_.path(), number * layout_.chunk + inside, count, types[type], out);
  }
  const auto& chunk = layout_.chunks[static_cast<size_t>(number)];
  file_.read(chunk.place + inside * layout_.element_size, out, count * layout_.element_size);
}

void StoreColumn::compare(int64_t number, const Bytes& bytes) const {
  if (sums_.empty()) return;
  const auto at = static_cast<size_t>(number);
  const int64_t begin = number * layout_.chunk;
  check<DamagedFile>(XXH3_64bits(bytes.data(), bytes.size()) == sums_[at], file_.path(), ": checksum of `",
                     name_, "` chunk ", number, " (tokens ", begin, " to ", begin + elements_of(number) - 1,
                     ") does not match; the file is damaged");
  compared_[at].store(true, std::memory_order_relaxed);
}

std::shared_ptr<const StoreColumn::Bytes> StoreColumn::whole(int64_t number) const {
  const bool packed = !handle_ && layout_.chunks[static_cast<size_t>(number)].packed;
  if (packed) {
    const std::lock_guard lock(unpacked_mutex_);
    if (unpacked_number_ == number) return unpacked_;
  }
  auto bytes = std::make_shared<Bytes>(static_cast<size_t>(elements_of(number) * layout_.element_size));
  if (packed)
    unpack(layout_.chunks[static_cast<size_t>(number)], *bytes);
  else
    read_stored(number, 0, elements_of(number), bytes->data());
  compare(number, *bytes);
  if (packed) {
    const std::lock_guard lock(unpacked_mutex_);
    unpacked_ = bytes;
    unpacked_number_ = number;
  }
  return bytes;
}

void StoreColumn::read(int64_t begin, int64_t count, void* out) const {
  for (auto* to = static_cast<char*>(out); count > 0;) {
    const int64_t number = begin / layout_.chunk, inside = begin % layout_.chunk;
    const int64_t now = std::min(count, layout_.chunk - inside);
    const auto at = static_cast<size_t>(number);
    const bool fresh = !sums_.empty() && !compared_[at].load(std::memory_order_relaxed);
    if (fresh || (!handle_ && layout_.chunks[at].packed)) {
      const auto bytes = whole(number);
      std::copy_n(bytes->begin() + inside * layout_.element_size, now * layout_.element_size, to);
    } else {
      read_stored(number, inside, now, to);
    }
    to += now * layout_.element_size;
    begin += now;
    count -= now;
  }
}

void StoreColumn::verify() const {
  {
    const std::lock_guard lock(unpacked_mutex_);
    unpacked_number_ = -1;
  }
  for (int64_t number = 0; number < static_cast<int64_t>(sums_.size()); ++number) whole(number);
}

}  // namespace longreach::data
