// One column of a token store: positioned reads straight from its chunks. A window costs a system call a
// chunk, takes no lock and grows with the window alone, but for the first visit to a chunk, which reads it
// whole and compares its checksum.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "data/common/files.h"
#include "data/corpora/store_layout.h"

namespace longreach::data {

class StoreColumn {
 public:
  // `file` outlives the column. Without sums nothing is compared.
  StoreColumn(const PositionedFile& file, const char* name, ColumnLayout layout,
              std::vector<uint64_t> sums = {});
  int64_t length() const { return layout_.length; }
  int64_t element_size() const { return layout_.element_size; }
  const std::vector<uint64_t>& sums() const { return sums_; }
  // Elements [begin, begin + count) in their stored width; safe to call from several threads.
  void read(int64_t begin, int64_t count, void* out) const;
  // Compares every sum, whether it has been compared or not. Throws DamagedFile naming the first that
  // differs.
  void verify() const;

 private:
  using Bytes = std::vector<char>;
  int64_t elements_of(int64_t number) const;
  void read_stored(int64_t number, int64_t inside, int64_t count, char* out) const;
  void unpack(const h5::Chunk& chunk, Bytes& out) const;
  std::shared_ptr<const Bytes> whole(int64_t number) const;
  void compare(int64_t number, const Bytes& bytes) const;

  const PositionedFile& file_;
  const char* name_;
  ColumnLayout layout_;
  std::vector<uint64_t> sums_;
  std::unique_ptr<std::atomic<bool>[]> compared_;
  h5::Handle handle_;  // of a column whose chunks are not listed: the library reads it
  h5::Dataset dataset_;
  // The chunk unpacked last: a reader that goes from front to back unpacks each once.
  mutable std::mutex unpacked_mutex_;
  mutable int64_t unpacked_number_ = -1;
  mutable std::shared_ptr<const Bytes> unpacked_;
};

}  // namespace longreach::data
