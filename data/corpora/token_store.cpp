// Reading token stores. What a file claims is checked against its size before anything is allocated; each
// chunk is compared with its checksum when it is first read.
#include "data/corpora/token_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "data/common/files.h"
#include "data/common/fingerprint.h"
#include "data/corpora/store_column.h"
#include "data/corpora/store_layout.h"

namespace longreach::data {
namespace {

// Keeps programs that heed locks (HDF5's own do) from writing into a store that is being read. Nothing where
// the file system has none.
class SharedLock {
 public:
  explicit SharedLock(const std::string& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    const bool taken =
        descriptor_ >= 0 && ::flock(descriptor_, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    struct flock range {};
    range.l_type = F_RDLCK;
    const bool claimed =
        descriptor_ >= 0 && ::fcntl(descriptor_, F_GETLK, &range) == 0 && range.l_type != F_UNLCK;
    if (taken || claimed) ::close(descriptor_);
    check<DataError>(!taken && !claimed, path, ": locked by ",
                     claimed && range.l_pid > 0 ? text("process ", range.l_pid) : "another program",
                     ", which has it open for writing; it can be read when that is done");
  }
  ~SharedLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;

 private:
  int descriptor_;
};

// A superblock of version 3 says so; without locks (NFS) nothing else does.
void expect_no_writer(const PositionedFile& file) {
  std::array<char, 12> head{};
  if (file.size() < static_cast<int64_t>(head.size())) return;
  file.read(0, head.data(), head.size());
  const bool hdf5 = std::string_view(head.data(), 8) == std::string_view("\211HDF\r\n\032\n", 8);
  check<DataError>(!hdf5 || head[8] < 3 || head[11] == 0, file.path(),
                   ": is open for writing in another program, or was when that was killed; when none has it "
                   "open, `h5clear -s FILE` makes it readable");
}

// The values of a column that keeps no sums.
template <class T>
std::vector<T> values_of(const PositionedFile& file, const char* name, const ColumnLayout& layout) {
  std::vector<T> values(static_cast<size_t>(layout.length));
  StoreColumn(file, name, layout).read(0, layout.length, values.data());
  return values;
}

}  // namespace

struct TokenStore::State {
  explicit State(const std::string& path) : file(path), lock(path) {}
  PositionedFile file;
  SharedLock lock;
  StoreAbout about;
  std::optional<StoreColumn> tokens, mask;
  std::vector<int64_t> offsets;

  void read_offsets(const StoreLayout& layout);
};

void TokenStore::State::read_offsets(const StoreLayout& layout) {
  offsets = values_of<int64_t>(file, "document_offsets", layout.offsets);
  check<DamagedFile>(XXH3_64bits(offsets.data(), offsets.size() * 8) == layout.offsets_checksum, file.path(),
                     ": checksum of `document_offsets` does not match; the file is damaged");
  const bool rising =
      std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>()) == offsets.end();
  check<DamagedFile>(offsets.front() == 0 && offsets.back() == layout.tokens.length && rising, file.path(),
                     ": document offsets do not rise from 0 to ", layout.tokens.length);
}

std::shared_ptr<TokenStore> TokenStore::open(const std::string& path) {
  auto state = std::make_unique<State>(path);
  const auto& file = state->file;
  expect_no_writer(file);
  auto layout = read_layout(path, file.size());
  state->about = layout.about;
  state->read_offsets(layout);
  state->tokens.emplace(file, "tokens", std::move(layout.tokens),
                        values_of<uint64_t>(file, "checksums", layout.checksums));
  if (state->about.loss_mask)
    state->mask.emplace(file, "loss_mask", std::move(layout.mask),
                        values_of<uint64_t>(file, "mask_checksums", layout.mask_checksums));
  return std::shared_ptr<TokenStore>(new TokenStore(std::move(state)));
}

TokenStore::TokenStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenStore::~TokenStore() = default;

int64_t TokenStore::num_tokens() const { return state_->tokens->length(); }
const std::vector<int64_t>& TokenStore::document_offsets() const { return state_->offsets; }
bool TokenStore::has_loss_mask() const { return state_->about.loss_mask; }
std::string TokenStore::name() const { return state_->file.path(); }
std::string TokenStore::fingerprint() const {
  Hasher hasher;
  hasher.add(state_->offsets);
  hasher.add(state_->tokens->sums());
  if (state_->mask) hasher.add(state_->mask->sums());
  return hasher.hex();
}
const StoreAbout& TokenStore::about() const { return state_->about; }
int64_t TokenStore::file_bytes() const { return state_->file.size(); }

void TokenStore::read(int64_t begin, std::span<Token> out) const {
  const auto count = static_cast<int64_t>(out.size());
  check(begin >= 0 && begin + count <= num_tokens(), name(), ": tokens ", begin, " to ", begin + count,
        " of ", num_tokens());
  if (state_->tokens->element_size() == 4) {
    state_->tokens->read(begin, count, out.data());
  } else {
    std::vector<uint16_t> narrow(out.size());
    state_->tokens->read(begin, count, narrow.data());
    std::copy(narrow.begin(), narrow.end(), out.begin());
  }
  const auto wrong = first_outside(out, state_->about.vocab_size);
  check<DamagedFile>(!wrong, name(), ": token ", wrong ? out[*wrong] : 0, " at ",
                     begin + static_cast<int64_t>(wrong.value_or(0)), " is outside the vocabulary of ",
                     state_->about.vocab_size, "; the file is damaged");
}

void TokenStore::read_loss_mask(int64_t begin, std::span<uint8_t> out) const {
  if (!has_loss_mask()) return TokenSource::read_loss_mask(begin, out);
  const auto count = static_cast<int64_t>(out.size());
  check(begin >= 0 && begin + count <= num_tokens(), name(), ": tokens ", begin, " to ", begin + count,
        " of ", num_tokens());
  state_->mask->read(begin, count, out.data());
}

void TokenStore::verify() const {
  state_->tokens->verify();
  if (state_->mask) state_->mask->verify();
}

}  // namespace longreach::data
