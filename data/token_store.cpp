// Reading token stores. What a file claims is checked against its size before anything is allocated. Tokens
// of an uncompressed store are read with positioned reads straight from the chunks, whose places the library
// tells once: a window costs two system calls, takes no lock and grows with the window alone.
#include "data/token_store.h"

#include <xxhash.h>

#include <algorithm>

#include "core/error.h"
#include "data/files.h"
#include "data/fingerprint.h"
#include "data/hdf5.h"

namespace longreach::data {
namespace {

// The library finds the place of chunk i in time i, so the table costs the square of the chunks: 0.5 s at
// this number (a billion tokens). Larger stores are read through the library.
constexpr int64_t kMostIndexedChunks = 16384;

// A dataset of one element per token.
struct TokenColumn {
  h5::Dataset dataset;
  std::vector<int64_t> chunk_places;  // byte offsets in the file; empty: read through the library
};

int64_t chunks_of(int64_t tokens) { return (tokens + kStoreChunk - 1) / kStoreChunk; }

void index_chunks(TokenColumn& column, const std::string& path, int64_t file_bytes) {
  const int64_t chunks = chunks_of(column.dataset.length);
  if (chunks > kMostIndexedChunks) return;
  const h5::Handle space(H5Dget_space(column.dataset.id.id()), H5Sclose);
  hsize_t stored = 0;
  check<DataError>(H5Dget_num_chunks(column.dataset.id.id(), space.id(), &stored) >= 0 &&
                       stored == static_cast<hsize_t>(chunks),
                   path, ": has ", stored, " of ", chunks, " chunks of tokens; the file is damaged");
  std::vector<int64_t> places(static_cast<size_t>(chunks), -1);
  for (hsize_t i = 0; i < stored; ++i) {
    hsize_t begin[1] = {0}, bytes = 0;
    unsigned unfiltered = 0;
    haddr_t place = HADDR_UNDEF;
    const bool found =
        H5Dget_chunk_info(column.dataset.id.id(), space.id(), i, begin, &unfiltered, &place, &bytes) >= 0;
    const auto end = static_cast<uint64_t>(file_bytes);
    check<DataError>(found && begin[0] / kStoreChunk < static_cast<hsize_t>(chunks) && bytes <= end &&
                         place <= end - bytes &&
                         (column.dataset.compressed || bytes == kStoreChunk * column.dataset.element_size),
                     path, ": chunk ", i, " lies outside the file; the file is damaged");
    places[begin[0] / kStoreChunk] = static_cast<int64_t>(place);
  }
  check<DataError>(std::find(places.begin(), places.end(), -1) == places.end(), path,
                   ": a chunk of tokens is missing; the file is damaged");
  if (!column.dataset.compressed) column.chunk_places = std::move(places);
}

}  // namespace

struct TokenStore::State {
  explicit State(const std::string& path) : file(path) {}
  PositionedFile file;
  StoreAbout about;
  TokenColumn tokens, mask;
  std::vector<int64_t> offsets;
  std::vector<uint64_t> checksums, mask_checksums;
  h5::Handle handle;

  const std::string& path() const { return file.path(); }
  TokenColumn open_column(const char* name, size_t element) const;
  std::vector<uint64_t> open_checksums(const char* name) const;
  void open_offsets();
  void read_raw(const TokenColumn& column, int64_t begin, int64_t count, void* out) const;
  void verify_column(const TokenColumn& column, const std::vector<uint64_t>& sums, const char* name) const;
};

TokenColumn TokenStore::State::open_column(const char* name, size_t element) const {
  TokenColumn column{h5::open_dataset(handle, path(), name), {}};
  check<DataError>(column.dataset.element_size == element && !column.dataset.is_signed &&
                       column.dataset.chunk == kStoreChunk,
                   path(), ": dataset `", name, "` has elements of ", column.dataset.element_size,
                   " bytes in chunks of ", column.dataset.chunk, ", expected ", element, " and ",
                   kStoreChunk);
  check<DataError>(chunks_of(column.dataset.length) <= file.size() / 8, path(), ": claims ",
                   column.dataset.length, " tokens in a file of ", file.size(), " bytes");
  index_chunks(column, path(), file.size());
  return column;
}

std::vector<uint64_t> TokenStore::State::open_checksums(const char* name) const {
  const auto dataset = h5::open_dataset(handle, path(), name);
  check<DataError>(dataset.element_size == 8 && !dataset.compressed && dataset.chunk <= kStoreChunk &&
                       dataset.length == chunks_of(tokens.dataset.length),
                   path(), ": dataset `", name, "` has ", dataset.length, " entries, expected ",
                   chunks_of(tokens.dataset.length));
  std::vector<uint64_t> sums(static_cast<size_t>(dataset.length));
  h5::read(dataset, path(), 0, dataset.length, H5T_NATIVE_UINT64, sums.data());
  return sums;
}

void TokenStore::State::open_offsets() {
  const auto dataset = h5::open_dataset(handle, path(), "document_offsets");
  check<DataError>(dataset.element_size == 8 && dataset.is_signed && !dataset.compressed &&
                       dataset.chunk <= kStoreChunk && dataset.length >= 2 &&
                       dataset.length <= file.size() / 8,
                   path(), ": dataset `document_offsets` has ", dataset.length, " entries in a file of ",
                   file.size(), " bytes");
  offsets.resize(static_cast<size_t>(dataset.length));
  h5::read(dataset, path(), 0, dataset.length, H5T_NATIVE_INT64, offsets.data());
  const auto sum = static_cast<uint64_t>(h5::read_int(handle, path(), "offsets_checksum"));
  check<DataError>(XXH3_64bits(offsets.data(), offsets.size() * 8) == sum, path(),
                   ": checksum of `document_offsets` does not match; the file is damaged");
  const bool rising =
      std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>()) == offsets.end();
  check<DataError>(offsets.front() == 0 && offsets.back() == tokens.dataset.length && rising, path(),
                   ": document offsets do not rise from 0 to ", tokens.dataset.length);
}

std::shared_ptr<TokenStore> TokenStore::open(const std::string& path) {
  auto state = std::make_unique<State>(path);
  const h5::Lock lock;
  state->handle = h5::open_file(path);
  const auto& file = state->handle;
  const bool ours =
      H5Aexists(file.id(), "format") > 0 && h5::read_text(file, path, "format") == "longreach token store";
  check<DataError>(ours, path, ": is an HDF5 file but not a Longreach token store (attribute `format`)");
  const int64_t version = h5::read_int(file, path, "version");
  check<DataError>(version == 1, path, ": token store version ", version, ", supported: 1");
  check<DataError>(h5::read_int(file, path, "complete") == 1, path, ": the store is not complete");
  auto& about = state->about;
  about.tokenizer_name = h5::read_text(file, path, "tokenizer_name");
  about.tokenizer_fingerprint = h5::read_text(file, path, "tokenizer_fingerprint");
  about.vocab_size = h5::read_int(file, path, "vocab_size");
  about.source = h5::read_text(file, path, "source");
  about.documents_are_files = h5::read_int(file, path, "documents_are_files") != 0;
  about.loss_mask = h5::has(file.id(), "loss_mask");
  check<DataError>(about.vocab_size >= 1 && about.vocab_size <= int64_t{1} << 31, path, ": vocabulary of ",
                   about.vocab_size, " tokens");
  state->tokens = state->open_column("tokens", about.vocab_size <= 65536 ? 2 : 4);
  state->checksums = state->open_checksums("checksums");
  state->open_offsets();
  if (about.loss_mask) {
    state->mask = state->open_column("loss_mask", 1);
    state->mask_checksums = state->open_checksums("mask_checksums");
    check<DataError>(state->mask.dataset.length == state->tokens.dataset.length, path, ": loss mask of ",
                     state->mask.dataset.length, " for ", state->tokens.dataset.length, " tokens");
  }
  return std::shared_ptr<TokenStore>(new TokenStore(std::move(state)));
}

TokenStore::TokenStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenStore::~TokenStore() = default;

int64_t TokenStore::num_tokens() const { return state_->tokens.dataset.length; }
const std::vector<int64_t>& TokenStore::document_offsets() const { return state_->offsets; }
bool TokenStore::has_loss_mask() const { return state_->about.loss_mask; }
std::string TokenStore::name() const { return state_->path(); }
std::string TokenStore::fingerprint() const {
  Hasher hasher;
  hasher.add(state_->offsets);
  hasher.add(state_->checksums);
  hasher.add(state_->mask_checksums);
  return hasher.hex();
}
const StoreAbout& TokenStore::about() const { return state_->about; }
int64_t TokenStore::file_bytes() const { return state_->file.size(); }

void TokenStore::State::read_raw(const TokenColumn& column, int64_t begin, int64_t count, void* out) const {
  const auto element = static_cast<int64_t>(column.dataset.element_size);
  if (column.chunk_places.empty()) {
    const h5::Lock lock;
    const hid_t type = element == 1 ? H5T_STD_U8LE : element == 2 ? H5T_STD_U16LE : H5T_STD_U32LE;
    return h5::read(column.dataset, path(), begin, count, type, out);
  }
  for (auto* to = static_cast<char*>(out); count > 0;) {
    const int64_t inside = begin % kStoreChunk, now = std::min(count, kStoreChunk - inside);
    file.read(column.chunk_places[static_cast<size_t>(begin / kStoreChunk)] + inside * element, to,
              now * element);
    to += now * element;
    begin += now;
    count -= now;
  }
}

void TokenStore::read(int64_t begin, std::span<Token> out) const {
  const auto count = static_cast<int64_t>(out.size());
  check(begin >= 0 && begin + count <= num_tokens(), name(), ": tokens ", begin, " to ", begin + count,
        " of ", num_tokens());
  if (state_->tokens.dataset.element_size == 4) {
    state_->read_raw(state_->tokens, begin, count, out.data());
  } else {
    std::vector<uint16_t> narrow(out.size());
    state_->read_raw(state_->tokens, begin, count, narrow.data());
    std::copy(narrow.begin(), narrow.end(), out.begin());
  }
  const auto wrong = first_outside(out, state_->about.vocab_size);
  check<DataError>(!wrong, name(), ": token ", wrong ? out[*wrong] : 0, " at ",
                   begin + static_cast<int64_t>(wrong.value_or(0)), " is outside the vocabulary of ",
                   state_->about.vocab_size, "; the file is damaged");
}

void TokenStore::read_loss_mask(int64_t begin, std::span<uint8_t> out) const {
  if (!has_loss_mask()) return TokenSource::read_loss_mask(begin, out);
  const auto count = static_cast<int64_t>(out.size());
  check(begin >= 0 && begin + count <= num_tokens(), name(), ": tokens ", begin, " to ", begin + count,
        " of ", num_tokens());
  state_->read_raw(state_->mask, begin, count, out.data());
}

void TokenStore::State::verify_column(const TokenColumn& column, const std::vector<uint64_t>& sums,
                                      const char* name) const {
  const auto element = static_cast<int64_t>(column.dataset.element_size);
  std::vector<char> buffer(static_cast<size_t>(kStoreChunk * element));
  for (size_t chunk = 0; chunk < sums.size(); ++chunk) {
    const int64_t begin = static_cast<int64_t>(chunk) * kStoreChunk;
    const int64_t count = std::min(kStoreChunk, column.dataset.length - begin);
    read_raw(column, begin, count, buffer.data());
    check<DataError>(XXH3_64bits(buffer.data(), static_cast<size_t>(count * element)) == sums[chunk], path(),
                     ": checksum of `", name, "` chunk ", chunk, " (tokens ", begin, " to ",
                     begin + count - 1, ") does not match; the file is damaged");
  }
}

void TokenStore::verify() const {
  state_->verify_column(state_->tokens, state_->checksums, "tokens");
  if (has_loss_mask()) state_->verify_column(state_->mask, state_->mask_checksums, "loss_mask");
}

}  // namespace longreach::data
