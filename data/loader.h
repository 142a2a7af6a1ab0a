// From sources to training batches. The sample with global number g is a pure function of (config, seed, g):
// the order does not depend on the world size, and resuming at a step needs nothing but the step.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fields.h"
#include "data/token_source.h"
#include "data/tokenizer.h"

namespace longreach::data {

struct DataConfig {
  std::vector<std::string> train;  // token stores (.h5), text files, JSONL files or folders of text files
  std::vector<std::string> valid;  // empty: the last `valid_fraction` of every training document's file
  std::vector<double> data_probs;  // one a train entry; empty: by tokens
  std::string tokenizer = "bytes";
  double valid_fraction = 0.05;
  std::string text_key = "text";         // JSONL
  std::string chat_template = "chatml";  // chatml | llama3, for `messages`
  void fields(FieldVisitor& visit);
};

// One micro-batch, row-major [rows, seq_len].
struct TokenBatch {
  int64_t rows = 0, seq_len = 0;
  std::vector<int64_t> tokens, labels, positions;  // labels are shifted; kIgnoreLabel across document borders
  std::vector<int32_t> cu_seqlens;  // over rows * seq_len flattened tokens; every row begins a document
};
inline constexpr int64_t kIgnoreLabel = -100;

struct Corpus {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::shared_ptr<const TokenSource>> train, valid;  // valid tokens are never in train
  std::vector<double> probabilities;                             // one a train source, sums to 1
};

// Reads, tokenizes (text files are cached as stores under cache_folder) and splits. Throws DataError naming
// the file.
Corpus open_corpus(const DataConfig& config, const std::string& cache_folder);

struct LoaderOptions {
  int64_t seq_len = 1024;
  uint64_t seed = 0;
  bool varlen =
      true;  // true: documents are packed and never see each other; false: plain windows of the stream
};

class TrainLoader {
 public:
  TrainLoader(const Corpus& corpus, const LoaderOptions& options);
  // Samples first_sample .. first_sample + rows - 1.
  TokenBatch batch(int64_t first_sample, int64_t rows) const;

 private:
  Corpus corpus_;
  LoaderOptions options_;
};

// The held-out text in order, cut into rows of seq_len (the last one padded with kIgnoreLabel), each token
// labelled exactly once.
class ValidLoader {
 public:
  ValidLoader(const Corpus& corpus, const LoaderOptions& options);
  int64_t num_rows() const;
  TokenBatch batch(int64_t first_row, int64_t rows) const;  // rows beyond the end are dropped
  int64_t num_bytes() const;                                // of the held-out text, for bits per byte

 private:
  Corpus corpus_;
  LoaderOptions options_;
};

}  // namespace longreach::data
