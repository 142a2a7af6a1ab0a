// The token store: one HDF5 file a corpus.
//
//   /tokens            uint16 (vocab_size <= 65536) or uint32 [N], extendible, chunks of 65536; uncompressed,
//   or gzip
//                      without the shuffle filter (shuffling makes token streams larger)
//   /document_offsets  int64 [documents + 1], 0 first, N last, increasing
//   /loss_mask         uint8 [N], optional: 1 where a label is wanted
//   /checksums         uint64 [ceil(N / 65536)]: XXH3-64 of each chunk's tokens, little-endian, in stored
//   width /mask_checksums    the same for loss_mask attributes         format, version, complete,
//   tokenizer_name, tokenizer_fingerprint, vocab_size, source,
//                      documents_are_files, offsets_checksum (XXH3-64 of the offsets, little-endian)
//
// A store appears under its name only when it is complete.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/corpora/token_source.h"

namespace longreach::data {

inline constexpr int64_t kStoreChunk = 65536;  // tokens

struct StoreAbout {
  std::string tokenizer_name, tokenizer_fingerprint;
  int64_t vocab_size = 0;
  std::string source;    // what it was made of, for people
  std::string settings;  // how, for programs: two stores of one text and equal settings are equal
  // Each document is a whole file; decides how text is held out (data/split.h)
  bool documents_are_files = false;
  bool loss_mask = false;
  int gzip_level = 0;  // 0: uncompressed
};

// Writes a store of any size in constant memory. Until finish() everything lies in the folder PATH.partial as
// plain streams plus a record of the last checkpoint, so a process that is killed loses what came after that
// checkpoint and nothing else; a writer opened again for the same `about` goes on from there. finish() makes
// the HDF5 file under a temporary name, flushes it and renames it.
class TokenStoreWriter {
 public:
  // Throws DataError when the folder cannot be written.
  TokenStoreWriter(std::string path, StoreAbout about);
  ~TokenStoreWriter();
  TokenStoreWriter(const TokenStoreWriter&) = delete;
  TokenStoreWriter& operator=(const TokenStoreWriter&) = delete;

  // Source documents already complete: the caller skips that many. Counts documents that gave no tokens too.
  int64_t documents_done() const;
  int64_t num_tokens() const;
  int64_t num_documents() const;  // with tokens

  // Adds to the open document. `mask` is empty (all 1) or as long as `tokens`. Throws DataError for an id
  // outside the vocabulary or a mask in a store without one.
  void append(std::span<const Token> tokens, std::span<const uint8_t> mask = {});
  void end_document();  // checkpoints by itself every 1 Mi tokens
  void checkpoint();    // only between documents
  // Throws DataError when there is not one token.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class TokenStore : public TokenSource {
 public:
  // Checks everything but the token checksums. Throws DataError: one line that begins with the path.
  static std::shared_ptr<TokenStore> open(const std::string& path);
  ~TokenStore() override;

  int64_t num_tokens() const override;
  const std::vector<int64_t>& document_offsets() const override;
  void read(int64_t begin, std::span<Token> out) const override;
  bool has_loss_mask() const override;
  void read_loss_mask(int64_t begin, std::span<uint8_t> out) const override;
  std::string name() const override;
  std::string fingerprint() const override;  // of the sums it holds: nothing is read

  const StoreAbout& about() const;
  int64_t file_bytes() const;
  // Reads every token and compares checksums. Throws DataError that names the first chunk that differs.
  void verify() const;

 private:
  struct State;
  explicit TokenStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace longreach::data
