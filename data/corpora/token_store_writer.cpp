// Writing token stores: streams with checkpoints first, one HDF5 file at the end.
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file_lock.h"
#include "data/common/files.h"
#include "data/common/fingerprint.h"
#include "data/corpora/hdf5.h"
#include "data/corpora/token_store.h"

namespace longreach::data {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kCheckpointTokens = 1 << 20;

// A file that only grows, cut back to a known size when it is opened.
class AppendFile {
 public:
  AppendFile(std::string path, int64_t size) : path_(std::move(path)), size_(size) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    check<DataError>(fd_ >= 0, path_, ": cannot be written: ", std::strerror(errno));
    const bool placed = ::ftruncate(fd_, size) == 0 && ::lseek(fd_, size, SEEK_SET) == size;
    if (!placed) ::close(fd_);
    check<DataError>(placed, path_, ": cannot be cut back to ", size, " bytes");
  }
  ~AppendFile() { ::close(fd_); }
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  void append(const void* data, size_t bytes) {
    buffer_.append(static_cast<const char*>(data), bytes);
    size_ += static_cast<int64_t>(bytes);
    if (buffer_.size() >= (1 << 20)) flush();
  }
  void flush() {
    for (size_t at = 0; at < buffer_.size();) {
      const ssize_t wrote = ::write(fd_, buffer_.data() + at, buffer_.size() - at);
      if (wrote < 0 && errno == EINTR) continue;
      check<DataError>(wrote > 0, path_, ": cannot be written: ", std::strerror(errno));
      at += static_cast<size_t>(wrote);
    }
    buffer_.clear();
  }
  void sync() {
    flush();
    check<DataError>(::fdatasync(fd_) == 0, path_, ": cannot be flushed to disk: ", std::strerror(errno));
  }
  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }

 private:
  std::string path_, buffer_;
  int64_t size_;
  int fd_ = -1;
};

struct Progress {
  int64_t documents_done = 0, documents = 0, tokens = 0;
};

nlohmann::json describe(const StoreAbout& about) {
  return {{"tokenizer_name", about.tokenizer_name},
          {"tokenizer_fingerprint", about.tokenizer_fingerprint},
          {"vocab_size", about.vocab_size},
          {"source", about.source},
          {"settings", about.settings},
          {"documents_are_files", about.documents_are_files},
          {"loss_mask", about.loss_mask}};
}

int64_t size_or_minus_one(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? -1 : static_cast<int64_t>(size);
}

}  // namespace

struct TokenStoreWriter::State {
  std::string path, folder;
  StoreAbout about;
  int64_t width;
  Progress now, last;  // last: as of the newest checkpoint
  int64_t open_tokens = 0;
  // The last to go: of two that write one store the second would mix its tokens in.
  std::optional<FileLock> lock;
  std::unique_ptr<AppendFile> tokens, offsets, mask;

  std::string in_folder(const char* name) const { return folder + "/" + name; }
  Progress recorded() const;
  void open_streams();
  void write_dataset(const h5::Handle& file, const char* name, const char* checksums, const std::string& from,
                     int64_t element, hid_t disk_type, hid_t memory_type, const std::string& to) const;
  uint64_t write_offsets(const h5::Handle& file, const std::string& to) const;
  void write_file(const std::string& to) const;
  void write_file_apart(const std::string& to) const;
};

// Where an earlier writer of the same store left off; nothing when there was none or its streams are not all
// there.
Progress TokenStoreWriter::State::recorded() const {
  std::ifstream in(in_folder("progress.json"));
  const auto record = nlohmann::json::parse(in, nullptr, false);
  if (!record.is_object() || record.value("about", nlohmann::json()) != describe(about)) return {};
  const auto number = [&](const char* key) {
    const auto found = record.find(key);
    return found != record.end() && found->is_number_integer() ? found->get<int64_t>() : int64_t{-1};
  };
  const Progress progress{number("documents_done"), number("documents"), number("tokens")};
  const bool whole = progress.documents_done >= 0 && progress.documents >= 0 && progress.tokens >= 0 &&
                     size_or_minus_one(in_folder("tokens")) / width >= progress.tokens &&
                     size_or_minus_one(in_folder("offsets")) / 8 >= progress.documents &&
                     (!about.loss_mask || size_or_minus_one(in_folder("mask")) >= progress.tokens);
  return whole ? progress : Progress{};
}

void TokenStoreWriter::State::open_streams() {
  std::error_code error;
  fs::create_directories(folder, error);
  check<DataError>(!error, folder, ": cannot be made: ", error.message());
  lock.emplace(FileLock::take(folder + ".lock", path));
  now = last = recorded();
  tokens = std::make_unique<AppendFile>(in_folder("tokens"), now.tokens * width);
  offsets = std::make_unique<AppendFile>(in_folder("offsets"), now.documents * 8);
  if (about.loss_mask) mask = std::make_unique<AppendFile>(in_folder("mask"), now.tokens);
}

TokenStoreWriter::TokenStoreWriter(std::string path, StoreAbout about) : state_(std::make_unique<State>()) {
  check<DataError>(about.vocab_size >= 1 && about.vocab_size <= int64_t{1} << 31, path, ": vocabulary of ",
                   about.vocab_size, " tokens");
  check<DataError>(about.gzip_level >= 0 && about.gzip_level <= 9, path, ": gzip level ", about.gzip_level,
                   ", allowed: 0 to 9");
  check<DataError>(about.source.size() < 60000, path, ": source description too long");
  state_->width = about.vocab_size <= 65536 ? 2 : 4;
  state_->folder = path + ".partial";
  state_->path = std::move(path);
  state_->about = std::move(about);
  state_->open_streams();
}

TokenStoreWriter::~TokenStoreWriter() = default;

int64_t TokenStoreWriter::documents_done() const { return state_->now.documents_done; }
int64_t TokenStoreWriter::num_tokens() const { return state_->now.tokens; }
int64_t TokenStoreWriter::num_documents() const { return state_->now.documents; }

void TokenStoreWriter::append(std::span<const Token> tokens, std::span<const uint8_t> mask) {
  auto& state = *state_;
  check<DataError>(mask.empty() || (state.about.loss_mask && mask.size() == tokens.size()), state.path,
                   ": loss mask of ", mask.size(), " for ", tokens.size(), " tokens in a store ",
                   state.about.loss_mask ? "with" : "without", " a mask");
  const auto wrong = first_outside(tokens, state.about.vocab_size);
  check<DataError>(!wrong, state.path, ": token ", wrong ? tokens[*wrong] : 0, ", allowed: 0 to ",
                   state.about.vocab_size - 1);
  if (state.width == 2) {
    const std::vector<uint16_t> narrow(tokens.begin(), tokens.end());
    state.tokens->append(narrow.data(), narrow.size() * 2);
  } else {
    state.tokens->append(tokens.data(), tokens.size_bytes());
  }
  if (state.mask && mask.empty()) {
    const std::vector<uint8_t> ones(tokens.size(), 1);
    state.mask->append(ones.data(), ones.size());
  } else if (state.mask) {
    state.mask->append(mask.data(), mask.size());
  }
  state.open_tokens += static_cast<int64_t>(tokens.size());
}

void TokenStoreWriter::end_document() {
  auto& state = *state_;
  ++state.now.documents_done;
  if (state.open_tokens > 0) {
    state.now.tokens += state.open_tokens;
    ++state.now.documents;
    state.open_tokens = 0;
    state.offsets->append(&state.now.tokens, sizeof(int64_t));
  }
  if (state.now.tokens - state.last.tokens >= kCheckpointTokens) checkpoint();
}

void TokenStoreWriter::checkpoint() {
  auto& state = *state_;
  check(state.open_tokens == 0, state.path, ": checkpoint inside a document");
  state.tokens->sync();
  state.offsets->sync();
  if (state.mask) state.mask->sync();
  const nlohmann::json record = {{"about", describe(state.about)},
                                 {"documents_done", state.now.documents_done},
                                 {"documents", state.now.documents},
                                 {"tokens", state.now.tokens}};
  write_atomically(state.in_folder("progress.json"), record.dump());
  state.last = state.now;
}

// Copies a stream into a dataset chunk by chunk, with each chunk's checksum.
void TokenStoreWriter::State::write_dataset(const h5::Handle& file, const char* name, const char* checksums,
                                            const std::string& from, int64_t element, hid_t disk_type,
                                            hid_t memory_type, const std::string& to) const {
  const auto dataset =
      h5::create_dataset(file, to, name, disk_type, now.tokens, kStoreChunk, about.gzip_level);
  const int64_t chunks = (now.tokens + kStoreChunk - 1) / kStoreChunk;
  const auto sums = h5::create_dataset(file, to, checksums, H5T_STD_U64LE, chunks, 1024, 0);
  const PositionedFile stream(from);
  std::vector<char> buffer(static_cast<size_t>(kStoreChunk * element));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = chunk * kStoreChunk, count = std::min(kStoreChunk, now.tokens - begin);
    stream.read(begin * element, buffer.data(), count * element);
    const uint64_t sum = XXH3_64bits(buffer.data(), static_cast<size_t>(count * element));
    h5::write(dataset, to, begin, count, memory_type, buffer.data());
    h5::write(sums, to, chunk, 1, H5T_NATIVE_UINT64, &sum);
  }
}

uint64_t TokenStoreWriter::State::write_offsets(const h5::Handle& file, const std::string& to) const {
  const auto dataset =
      h5::create_dataset(file, to, "document_offsets", H5T_STD_I64LE, now.documents + 1, 4096, 0);
  const PositionedFile stream(offsets->path());
  Hasher sum;
  std::vector<int64_t> block{0};
  for (int64_t written = 0; written <= now.documents;) {
    h5::write(dataset, to, written, static_cast<int64_t>(block.size()), H5T_NATIVE_INT64, block.data());
    sum.add(block);
    written += static_cast<int64_t>(block.size());
    block.resize(static_cast<size_t>(std::clamp<int64_t>(now.documents + 1 - written, 0, 4096)));
    if (block.empty()) break;
    stream.read((written - 1) * 8, block.data(), static_cast<int64_t>(block.size()) * 8);
  }
  return sum.value();
}

void TokenStoreWriter::State::write_file(const std::string& to) const {
  h5::Handle file = h5::create_file(to);
  write_dataset(file, "tokens", "checksums", tokens->path(), width,
                width == 2 ? H5T_STD_U16LE : H5T_STD_U32LE,
                width == 2 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32, to);
  if (mask)
    write_dataset(file, "loss_mask", "mask_checksums", mask->path(), 1, H5T_STD_U8LE, H5T_NATIVE_UINT8, to);
  const uint64_t offsets_sum = write_offsets(file, to);
  h5::write_text(file, to, "format", "longreach token store");
  h5::write_int(file, to, "version", 1);
  h5::write_text(file, to, "tokenizer_name", about.tokenizer_name);
  h5::write_text(file, to, "tokenizer_fingerprint", about.tokenizer_fingerprint);
  h5::write_int(file, to, "vocab_size", about.vocab_size);
  h5::write_text(file, to, "source", about.source);
  if (!about.settings.empty()) h5::write_text(file, to, "settings", about.settings);
  h5::write_int(file, to, "documents_are_files", about.documents_are_files);
  h5::write_int(file, to, "offsets_checksum", static_cast<int64_t>(offsets_sum));
  h5::write_int(file, to, "complete", 1);
  h5::finish_file(file, to);
}

// In a copy of the process, where the library may do after a failed write what it likes. What it has written
// then is no use to anybody and may be what fills the disk.
void TokenStoreWriter::State::write_file_apart(const std::string& to) const {
  try {
    h5::apart([&] { return write_file(to), std::string(); }, {});
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove(to, ignored);
    if (const auto* died = dynamic_cast<const WorkDied*>(&error))
      throw DataError(text(to, ": cannot be written: HDF5 ", died->what(), "; is the disk full?"));
    throw;
  }
}

void TokenStoreWriter::finish() {
  auto& state = *state_;
  check(state.open_tokens == 0, state.path, ": finished inside a document");
  check<DataError>(state.now.tokens > 0, state.path, ": not written: there is no text in ",
                   state.about.source);
  checkpoint();
  const std::string temporary = state.in_folder("store.h5");
  state.write_file_apart(temporary);
  sync_to_disk(temporary);
  check<DataError>(::rename(temporary.c_str(), state.path.c_str()) == 0, state.path,
                   ": cannot be written: ", std::strerror(errno));
  const auto parent = fs::path(state.path).parent_path();
  sync_to_disk(parent.empty() ? "." : parent.string());
  std::error_code ignored;
  fs::remove_all(state.folder, ignored);
}

}  // namespace longreach::data
