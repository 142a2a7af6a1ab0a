// The part of reading a token store that calls the HDF5 library, and the way of its result to this process.
#include "data/corpora/store_layout.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace longreach::data {
namespace h5 {

void to_json(nlohmann::json& json, const Chunk& chunk) { json = {chunk.place, chunk.bytes, chunk.packed}; }
void from_json(const nlohmann::json& json, Chunk& chunk) {
  chunk = {json.at(0).get<int64_t>(), json.at(1).get<int64_t>(), json.at(2).get<bool>()};
}

}  // namespace h5

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreAbout, tokenizer_name, tokenizer_fingerprint, vocab_size, source,
                                   settings, documents_are_files, loss_mask, gzip_level)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ColumnLayout, length, chunk, element_size, compressed, chunks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StoreLayout, about, offsets_checksum, tokens, checksums, offsets, mask,
                                   mask_checksums)

namespace {

// A healthy store takes milliseconds, one of a billion tokens half a second a column.
WorkLimits limits_for(int64_t file_bytes) {
  return {.cpu_seconds = 2 + std::min<int64_t>(file_bytes >> 26, 58), .memory_bytes = int64_t{1} << 30};
}

// Opens a store's file for as long as a layout is read from it.
class LayoutReader {
 public:
  LayoutReader(const std::string& path, int64_t file_bytes)
      : path_(path), file_bytes_(file_bytes), file_(h5::open_file(path)) {}

  StoreLayout read() const {
    StoreLayout layout;
    layout.about = read_about();
    layout.offsets_checksum = static_cast<uint64_t>(number("offsets_checksum"));
    layout.tokens = tokens_column("tokens", layout.about.vocab_size <= 65536 ? 2 : 4);
    layout.checksums = column_of_sums("checksums", layout.tokens);
    layout.offsets = plain_column("document_offsets", true);
    check<DamagedFile>(layout.offsets.length >= 2, path_, ": dataset `document_offsets` has ",
                       layout.offsets.length, " entries");
    if (!layout.about.loss_mask) return layout;
    layout.mask = tokens_column("loss_mask", 1);
    layout.mask_checksums = column_of_sums("mask_checksums", layout.mask);
    check<DamagedFile>(layout.mask.length == layout.tokens.length, path_, ": loss mask of ",
                       layout.mask.length, " for ", layout.tokens.length, " tokens");
    return layout;
  }

 private:
  int64_t number(const char* attribute) const { return h5::read_int(file_, path_, attribute); }
  std::string words(const char* attribute) const { return h5::read_text(file_, path_, attribute); }

  StoreAbout read_about() const {
    const bool ours = H5Aexists(file_.id(), "format") > 0 && words("format") == "longreach token store";
    check<DataError>(ours, path_, ": is an HDF5 file but not a Longreach token store (attribute `format`)");
    const int64_t version = number("version");
    check<DataError>(version == 1, path_, ": token store version ", version, ", supported: 1");
    check<DamagedFile>(number("complete") == 1, path_, ": the store is not complete");
    StoreAbout about{.tokenizer_name = words("tokenizer_name"),
                     .tokenizer_fingerprint = words("tokenizer_fingerprint"),
                     .vocab_size = number("vocab_size"),
                     .source = words("source")};
    if (H5Aexists(file_.id(), "settings") > 0) about.settings = words("settings");
    about.documents_are_files = number("documents_are_files") != 0;
    about.loss_mask = h5::has(file_.id(), "loss_mask");
    check<DamagedFile>(about.vocab_size >= 1 && about.vocab_size <= int64_t{1} << 31, path_,
                       ": vocabulary of ", about.vocab_size, " tokens");
    return about;
  }

  ColumnLayout column(const char* name, const h5::Dataset& dataset) const {
    ColumnLayout layout{dataset.length, dataset.chunk, dataset.element_size, dataset.compressed, {}};
    check<DamagedFile>(layout.num_chunks() <= file_bytes_ / 8, path_, ": dataset `", name, "` claims ",
                       dataset.length, " elements in a file of ", file_bytes_, " bytes");
    layout.chunks = h5::list_chunks(dataset, path_, file_bytes_);
    return layout;
  }

  ColumnLayout tokens_column(const char* name, int64_t element) const {
    const auto dataset = h5::open_dataset(file_, path_, name);
    check<DamagedFile>(dataset.element_size == element && !dataset.is_signed && dataset.chunk == kStoreChunk,
                       path_, ": dataset `", name, "` has elements of ", dataset.element_size,
                       " bytes in chunks of ", dataset.chunk, ", expected ", element, " and ", kStoreChunk);
    return column(name, dataset);
  }

  // Of 8 bytes an element, not compressed.
  ColumnLayout plain_column(const char* name, bool is_signed) const {
    const auto dataset = h5::open_dataset(file_, path_, name);
    check<DamagedFile>(dataset.element_size == 8 && dataset.is_signed == is_signed && !dataset.compressed &&
                           dataset.chunk <= kStoreChunk && dataset.length <= file_bytes_ / 8,
                       path_, ": dataset `", name, "` has ", dataset.length, " entries of ",
                       dataset.element_size, " bytes in a file of ", file_bytes_, " bytes");
    return column(name, dataset);
  }

  ColumnLayout column_of_sums(const char* name, const ColumnLayout& of) const {
    auto layout = plain_column(name, false);
    check<DamagedFile>(layout.length == of.num_chunks(), path_, ": dataset `", name, "` has ", layout.length,
                       " entries, expected ", of.num_chunks());
    return layout;
  }

  std::string path_;
  int64_t file_bytes_;
  h5::Handle file_;
};

}  // namespace

StoreLayout read_layout(const std::string& path, int64_t file_bytes) {
  const auto work = [&] {
    std::string answer;
    nlohmann::json::to_msgpack(LayoutReader(path, file_bytes).read(), answer);
    return answer;
  };
  try {
    const std::string answer = h5::apart(work, limits_for(file_bytes));
    return nlohmann::json::from_msgpack(answer).get<StoreLayout>();
  } catch (const WorkDied& died) {
    const std::string what = text(path, ": HDF5 ", died.what(), " while reading it");
    if (died.by_itself) throw DamagedFile(what + "; the file is damaged");
    throw DataError(what);
  } catch (const nlohmann::json::exception&) {
    throw DamagedFile(path + ": HDF5 reads nonsense from it; the file is damaged");
  }
}

}  // namespace longreach::data
