// What the tests of texts share: texts, packed ones, and the store that is made of them.
#pragma once
#include <zlib.h>
#include <zstd.h>

#include <memory>
#include <string>
#include <vector>

#include "data/corpora/tokenize.h"
#include "tests/data/fixtures.h"

namespace longreach::data::testing {

inline std::string gzip(const std::string& text) {
  std::string packed(text.size() + 1000, '\0');
  z_stream state{};
  deflateInit2(&state, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(packed.data());
  state.avail_out = static_cast<uInt>(packed.size());
  deflate(&state, Z_FINISH);
  packed.resize(state.total_out);
  deflateEnd(&state);
  return packed;
}

inline std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

inline std::string random_text(size_t size) {
  std::string text;
  for (const Token token : random_tokens(static_cast<int64_t>(size), 256, 1))
    text += static_cast<char>(token & 0x4f);
  return text;
}

inline std::shared_ptr<TokenStore> store_of(const std::vector<std::string>& inputs,
                                            const TemporaryFolder& folder,
                                            const Tokenizer& tokenizer = ByteLevel(),
                                            const TokenizeOptions& options = {}) {
  tokenize_files(inputs, tokenizer, options, folder.path("store.h5"));
  return TokenStore::open(folder.path("store.h5"));
}

}  // namespace longreach::data::testing
