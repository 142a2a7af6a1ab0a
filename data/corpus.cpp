// The [data] section of a config, and the sources it names.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/error.h"
#include "core/naming.h"
#include "data/corpora/fetch.h"
#include "data/corpora/token_bin.h"
#include "data/corpora/token_store.h"
#include "data/corpora/tokenize.h"
#include "data/loader.h"
#include "data/split.h"
#include "data/tokenizers/tokenizer_ends.h"

namespace longreach::data {
namespace {

// What is wrong with data_probs; empty when nothing is.
std::string fault_of(const std::vector<double>& probabilities, size_t sources) {
  if (probabilities.empty()) return {};
  if (probabilities.size() != sources)
    return text("has ", probabilities.size(), " values, expected one for each of the ", sources,
                " entries of train");
  for (const double p : probabilities)
    if (!(p >= 0) || !std::isfinite(p)) return text("has the value ", p, ", allowed: numbers >= 0");
  if (std::accumulate(probabilities.begin(), probabilities.end(), 0.0) <= 0)
    return "is 0 for every entry of train";
  return {};
}

struct OpenSource {
  std::shared_ptr<const TokenSource> tokens;
  bool documents_are_files = false;
};

OpenSource open_source(const std::string& entry, const DataConfig& config, const Tokenizer& tokenizer,
                       const std::string& cache_folder) {
  if (entry.ends_with(".bin")) return {open_token_bin(entry, tokenizer), false};
  std::shared_ptr<TokenStore> store;
  if (holds_tokens(entry)) {
    store = TokenStore::open(entry);
  } else {
    TokenizeOptions options{.text_key = config.text_key,
                            .chat_template = config.chat_template,
                            .chat = chat_format_of(config.chat_template, config.tokenizer),
                            .bos = bos_before_texts(tokenizer, config.tokenizer),
                            .progress = true};
    const bool named = is_named_corpus(entry);
    store = cached_store(named ? fetch_corpus(entry).text_folder : entry, tokenizer, options, cache_folder);
  }
  const auto& about = store->about();
  check<DataError>(about.tokenizer_fingerprint == tokenizer.fingerprint(), entry,
                   ": was made with the tokenizer ", one_line(about.tokenizer_name, 60), " (",
                   one_line(about.tokenizer_fingerprint, 40), "), but data.tokenizer is ", tokenizer.name(),
                   " (", tokenizer.fingerprint(), ")");
  return {store, about.documents_are_files};
}

struct Entry {
  const char* key;  // of the config
  std::string name;
};

// The source of every entry, in their order. Text that is there comes last: what is missing, damaged or of
// another tokenizer is refused before hours of tokenizing.
std::vector<OpenSource> open_all(const std::vector<Entry>& entries, const DataConfig& config,
                                 const Tokenizer& tokenizer, const std::string& cache_folder) {
  const auto costs_time = [](const Entry& entry) {
    std::error_code error;
    return !holds_tokens(entry.name) &&
           (is_named_corpus(entry.name) || std::filesystem::exists(entry.name, error));
  };
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_partition(order.begin(), order.end(), [&](size_t i) { return !costs_time(entries[i]); });
  std::vector<OpenSource> sources(entries.size());
  for (const size_t i : order)
    sources[i] = naming<DataError>(
        entries[i].key, [&] { return open_source(entries[i].name, config, tokenizer, cache_folder); });
  return sources;
}

}  // namespace

void DataConfig::fields(FieldVisitor& visit) {
  visit.field(
      "train", train,
      {.help =
           "what to train on, in any mix: named corpora (shakespeare, linux-doc; fetched when missing), "
           "token "
           "stores (.h5, .bin), text files, JSONL files, folders of text files; text may be .gz or .zst and "
           "is tokenized once"});
  visit.field(
      "valid", valid,
      {.help = "what to validate on, as for train; empty: the last valid_fraction of every training file (of "
               "the documents, for corpora of 1000 and more that are not whole files, and for fine-tuning "
               "data)"});
  visit.field(
      "data_probs", data_probs,
      {.help = "shares of samples drawn from each entry of train, in its order; need not sum to 1; empty: by "
               "number of tokens"});
  visit.field(
      "tokenizer", tokenizer,
      {.help = "\"bytes\", or a folder or file with a tokenizer.json (byte-level BPE) or tokenizer.model "
               "(SentencePiece), or a GGUF file"});
  visit.field("valid_fraction", valid_fraction,
              {.help = "share of the text held out for validation when valid is empty; 0: none",
               .allowed = real_between(0, 0.9)});
  visit.field("text_key", text_key,
              {.help = "key of the text in JSONL lines that are no fine-tuning examples"});
  visit.field(
      "chat_template", chat_template,
      {.help =
           "template for JSONL lines with `messages`: checkpoint is the one that came with the tokenizer, "
           "auto is that too, or chatml where none came",
       .allowed = one_of({"auto", "checkpoint", "chatml", "llama3"})});
  if (const auto fault = fault_of(data_probs, train.size()); !fault.empty())
    visit.reject("data_probs", fault);
}

Corpus open_corpus(const DataConfig& config, const std::string& cache_folder,
                   std::shared_ptr<const Tokenizer> tokenizer) {
  check<DataError>(!config.train.empty(),
                   "data.train is empty: name a corpus, a token store or text to train on");
  const std::string fault = fault_of(config.data_probs, config.train.size());
  check<DataError>(fault.empty(), "data.data_probs ", fault);
  Corpus corpus;
  corpus.tokenizer =
      tokenizer ? std::move(tokenizer)
                : naming<DataError>("data.tokenizer", [&] { return load_tokenizer(config.tokenizer); });
  std::vector<Entry> entries;
  for (const auto& name : config.train) entries.push_back({"data.train", name});
  for (const auto& name : config.valid) entries.push_back({"data.valid", name});
  const std::vector<OpenSource> sources = open_all(entries, config, *corpus.tokenizer, cache_folder);
  const double fraction = config.valid.empty() ? config.valid_fraction : 0;
  for (size_t i = 0; i < config.train.size(); ++i) {
    auto split = hold_out(sources[i].tokens, fraction, sources[i].documents_are_files);
    corpus.train.push_back(std::move(split.train));
    if (split.valid) corpus.valid.push_back(std::move(split.valid));
  }
  for (size_t i = config.train.size(); i < sources.size(); ++i) corpus.valid.push_back(sources[i].tokens);
  corpus.probabilities = config.data_probs;
  if (corpus.probabilities.empty())
    for (const auto& source : corpus.train)
      corpus.probabilities.push_back(static_cast<double>(source->num_tokens()));
  const double sum = std::accumulate(corpus.probabilities.begin(), corpus.probabilities.end(), 0.0);
  for (double& p : corpus.probabilities) p /= sum;
  return corpus;
}

CorpusSize size_of(const std::vector<std::shared_ptr<const TokenSource>>& sources) {
  CorpusSize size;
  for (const auto& source : sources) {
    const auto& offsets = source->document_offsets();
    size.tokens += source->num_tokens();
    size.documents += static_cast<int64_t>(offsets.size()) - 1;
    for (size_t i = 1; i < offsets.size(); ++i)
      size.longest = std::max(size.longest, offsets[i] - offsets[i - 1]);
  }
  return size;
}

void for_each_text(const std::vector<std::shared_ptr<const TokenSource>>& sources, const Tokenizer& tokenizer,
                   const std::function<void(std::string_view bytes, bool begins_document)>& consume) {
  std::vector<Token> block;
  for (const auto& source : sources) {
    const auto& offsets = source->document_offsets();
    for (size_t document = 0; document + 1 < offsets.size(); ++document) {
      const int64_t begin = offsets[document], end = offsets[document + 1];
      for (int64_t at = begin; at < end; at += 1 << 18) {
        block.resize(static_cast<size_t>(std::min<int64_t>(end - at, 1 << 18)));
        source->read(at, block);
        std::span<const Token> words(block);
        if (at + static_cast<int64_t>(block.size()) == end && block.back() == tokenizer.eos())
          words = words.first(words.size() - 1);
        consume(tokenizer.decode(words), at == begin);
      }
    }
  }
}

}  // namespace longreach::data
