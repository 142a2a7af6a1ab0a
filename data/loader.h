// From sources to training batches. The sample with global number g is a pure function of (config, seed, g):
// the order does not depend on the world size, and resuming at a step needs nothing but the step.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/fields.h"
#include "data/corpora/token_source.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

struct DataConfig {
  std::vector<std::string> train;  // named corpora, token stores, text files, JSONL files, folders of text
  std::vector<std::string> valid;  // empty: held out of train by the rule of data/split.h
  std::vector<double> data_probs;  // one a train entry; empty: by tokens
  std::string tokenizer = "bytes";
  double valid_fraction = 0.05;
  std::string text_key = "text";       // JSONL
  std::string chat_template = "auto";  // auto | checkpoint | chatml | llama3, for `messages`
  void fields(FieldVisitor& visit);
};

// One micro-batch, row-major [rows, seq_len]. data/packing.h says how rows are cut and filled.
struct TokenBatch {
  int64_t rows = 0, seq_len = 0;
  std::vector<int64_t> tokens, labels, positions;  // labels are shifted; kIgnoreLabel across document borders
  std::vector<int32_t> cu_seqlens;  // over rows * seq_len flattened tokens; every row begins a piece
};
inline constexpr int64_t kIgnoreLabel = -100;

struct Corpus {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::shared_ptr<const TokenSource>> train, valid;  // valid tokens are never in train
  std::vector<double> probabilities;                             // one a train source, sums to 1
};

// Reads, tokenizes (text files are cached as stores under cache_folder, with a progress line on stderr),
// fetches named corpora that are missing, and splits. valid is empty when valid_fraction is 0 and `valid`
// names nothing. tokenizer: that of config.tokenizer; null: loaded here. Throws DataError naming the file or
// key.
Corpus open_corpus(const DataConfig& config, const std::string& cache_folder,
                   std::shared_ptr<const Tokenizer> tokenizer = nullptr);

struct CorpusSize {
  int64_t tokens = 0, documents = 0, longest = 0;  // longest: tokens of the longest document
};
CorpusSize size_of(const std::vector<std::shared_ptr<const TokenSource>>& sources);

// The text of every document in order, in pieces of bounded size (each: bytes, and whether they begin a
// document); the eos that ends a document is left out.
void for_each_text(const std::vector<std::shared_ptr<const TokenSource>>& sources, const Tokenizer& tokenizer,
                   const std::function<void(std::string_view bytes, bool begins_document)>& consume);

struct LoaderOptions {
  int64_t seq_len = 1024;
  uint64_t seed = 0;
  // true: documents are packed and never see each other; false: plain windows of the stream
  bool varlen = true;
};

// Safe to call from several threads, as the sources are. Sources are mixed in exact proportion within every
// block of samples; each is visited in a random order without replacement, again and again.
class TrainLoader {
 public:
  TrainLoader(const Corpus& corpus, const LoaderOptions& options);
  // Samples first_sample .. first_sample + rows - 1.
  TokenBatch batch(int64_t first_sample, int64_t rows) const;

 private:
  struct Plan;
  Corpus corpus_;
  LoaderOptions options_;
  std::shared_ptr<const Plan> plan_;
};

// The held-out text in order, cut into rows of seq_len (the last one of each source padded with
// kIgnoreLabel). The last label of a row is the first token of the next, so each token is labelled exactly
// once, but for the first of each document (varlen) or source (otherwise), which nothing comes before, and
// what a loss mask leaves out.
class ValidLoader {
 public:
  ValidLoader(const Corpus& corpus, const LoaderOptions& options);
  int64_t num_rows() const;
  TokenBatch batch(int64_t first_row, int64_t rows) const;  // rows beyond the end are dropped
  int64_t num_labels() const;                               // tokens labelled in all rows
  int64_t num_bytes() const;  // of text that the labels of all rows cover, for bits per byte

 private:
  struct Plan;
  Corpus corpus_;
  LoaderOptions options_;
  std::shared_ptr<const Plan> plan_;
};

}  // namespace longreach::data
