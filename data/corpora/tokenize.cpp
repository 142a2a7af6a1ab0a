// Tokenizing text files into stores, in memory that does not grow with the corpus.
#include "data/corpora/tokenize.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iomanip>
#include <iostream>

#include "core/error.h"
#include "core/file_lock.h"
#include "data/common/files.h"
#include "data/common/fingerprint.h"
#include "data/corpora/byte_stream.h"
#include "data/corpora/forked.h"
#include "data/corpora/json_lines.h"
#include "data/corpora/text_pieces.h"

namespace longreach::data {
namespace fs = std::filesystem;
namespace {

struct InputFile {
  std::string path;
  int64_t bytes = 0, modified_ns = 0;
  RecordForm form = RecordForm::none;
};

std::vector<InputFile> expand(const std::vector<std::string>& inputs, const std::string& text_key) {
  std::vector<InputFile> files;
  for (const auto& input : inputs) {
    const auto found = list_files(input);
    check<DataError>(!found.empty(), input, ": the folder holds no files");
    for (const auto& path : found) {
      struct stat status {};
      check<DataError>(::stat(path.c_str(), &status) == 0, path, ": cannot be read");
      check<DataError>(!holds_tokens(path), path, ": holds tokens, expected text");
      const std::string name = plain_name(path);
      const bool tables = name.ends_with(".parquet") || name.ends_with(".arrow");
      if (tables) open_stream(path);  // refuses them, and says what makes text of them
      check<DataError>(!tables, path, ": its name is that of a table, but it holds none that is known");
      files.push_back({path, status.st_size, status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec,
                       record_form(path, text_key)});
    }
  }
  return files;
}

class ProgressLine {
 public:
  ProgressLine(bool enabled, std::string what, int64_t total_bytes)
      : enabled_(enabled),
        terminal_(::isatty(STDERR_FILENO) != 0),
        what_(std::move(what)),
        total_bytes_(total_bytes) {}

  void show(int64_t bytes, int64_t tokens, bool last = false) {
    const auto now = Clock::now();
    const double pause = terminal_ ? 0.2 : 10;
    if (!enabled_ || (!last && seconds(now - shown_) < pause)) return;
    shown_ = now;
    const double rate = static_cast<double>(bytes) / 1e6 / std::max(seconds(now - begun_), 1e-3);
    std::ostringstream line;
    line << std::fixed << std::setprecision(1) << "tokenizing " << what_ << ": " << bytes / 1e6 << " of "
         << total_bytes_ / 1e6 << " MB, " << tokens / 1e6 << " M tokens, " << rate << " MB/s";
    std::cerr << (terminal_ ? "\r\x1b[K" : "") << line.str() << (terminal_ && !last ? "" : "\n")
              << std::flush;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }
  bool enabled_, terminal_;
  std::string what_;
  int64_t total_bytes_;
  Clock::time_point begun_ = Clock::now(), shown_ = Clock::now();
};

class FileTokenizer {
 public:
  FileTokenizer(const Tokenizer& tokenizer, const TokenizeOptions& options, TokenStoreWriter& writer,
                ProgressLine& progress, bool wants_mask)
      : tokenizer_(tokenizer),
        options_(options),
        writer_(writer),
        progress_(progress),
        wants_mask_(wants_mask),
        to_skip_(writer.documents_done()) {}

  const ExampleNotes& notes() const { return notes_; }

  void file(const InputFile& input) {
    if (input.form == RecordForm::none)
      whole(input);
    else
      records(input);
    bytes_before_ += input.bytes;
    progress_.show(bytes_before_, writer_.num_tokens());
  }

 private:
  // Counts a source document; true when an earlier run has written it.
  bool skipped() {
    if (to_skip_ == 0) return false;
    --to_skip_;
    return true;
  }

  void whole(const InputFile& input) {
    if (skipped()) return;
    const auto stream = open_stream(input.path);
    bool any = false;
    encode_document(*stream, tokenizer_, options_.piece_bytes, [&](const std::vector<Token>& tokens) {
      if (options_.bos && !any && !tokens.empty() && tokens[0] != *options_.bos)
        writer_.append({{*options_.bos}});
      any = true;
      writer_.append(tokens);
      progress_.show(bytes_before_ + stream->position(), writer_.num_tokens());
    });
    const auto eos = tokenizer_.eos();
    if (eos && any) writer_.append({{*eos}});
    writer_.end_document();
  }

  void records(const InputFile& input) {
    RecordReader reader(input.path, input.form);
    for (std::string record; reader.next(record);) {
      if (skipped()) continue;
      const auto where = reader.where();
      const auto document =
          encode_json_line(record, tokenizer_, options_.text_key,
                           {options_.chat_template, options_.chat.get(), options_.bos}, where, notes_);
      check<DataError>(document.mask.empty() || wants_mask_, where,
                       ": a fine-tuning example in a file that began with plain text");
      if (wants_mask_ && document.mask.empty())
        notes_.say(where, "a line of plain text among fine-tuning examples is learnt as a whole");
      writer_.append(document.tokens, document.mask);
      writer_.end_document();
      progress_.show(bytes_before_ + reader.position(), writer_.num_tokens());
    }
  }

  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  TokenStoreWriter& writer_;
  ProgressLine& progress_;
  ExampleNotes notes_;
  bool wants_mask_;
  int64_t to_skip_, bytes_before_ = 0;
};

// A fine-tuning corpus shows in the first line of its first JSONL file.
bool wants_mask(const std::vector<InputFile>& files, const TokenizeOptions& options) {
  for (const auto& file : files) {
    if (file.form == RecordForm::none) continue;
    RecordReader reader(file.path, file.form);
    if (std::string record; reader.next(record)) return is_example(record, options.text_key, reader.where());
  }
  return false;
}

// How text becomes tokens.
std::string rules_of(const Tokenizer& tokenizer, const TokenizeOptions& options) {
  return text("3\n", tokenizer.fingerprint(), '\n', options.text_key, '\n', options.chat_template, '\n',
              options.gzip_level, '\n', options.chat ? options.chat->fingerprint() : "",
              options.bos ? text("\nbos ", *options.bos) : "");
}

// Names the state of the inputs: resuming and caching hold only while nothing has changed.
std::string state_of(const std::vector<InputFile>& files, const Tokenizer& tokenizer,
                     const TokenizeOptions& options) {
  std::string facts = rules_of(tokenizer, options);
  for (const auto& file : files)
    facts += text(fs::absolute(file.path).lexically_normal().string(), '\n', file.bytes, ' ',
                  file.modified_ns, '\n');
  return hash_hex(facts);
}

// Names what was asked for, in the words of the config, whatever the inputs hold.
std::string settings_of(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                        const TokenizeOptions& options) {
  return hash_hex(rules_of(tokenizer, options) + join(inputs, "\n"));
}

bool any_label(const TokenSource& source) {
  std::vector<uint8_t> block;
  for (int64_t at = 0; at < source.num_tokens(); at += kStoreChunk) {
    block.resize(static_cast<size_t>(std::min(kStoreChunk, source.num_tokens() - at)));
    source.read_loss_mask(at, block);
    if (std::count(block.begin(), block.end(), 1) > 0) return true;
  }
  return false;
}

void write_store(const std::vector<std::string>& inputs, const std::vector<InputFile>& files,
                 const Tokenizer& tokenizer, const TokenizeOptions& options, const std::string& output) {
  int64_t total_bytes = 0;
  for (const auto& file : files) total_bytes += file.bytes;
  const std::string named = one_line(join(inputs), 400);
  if (files.size() == 1) check<DataError>(total_bytes > 0, files[0].path, ": is empty");
  StoreAbout about{
      .tokenizer_name = tokenizer.name(),
      .tokenizer_fingerprint = tokenizer.fingerprint(),
      .vocab_size = tokenizer.vocab_size(),
      .source = text(named, " (", files.size(), " files, state ", state_of(files, tokenizer, options), ")"),
      .settings = settings_of(inputs, tokenizer, options),
      .loss_mask = wants_mask(files, options),
      .gzip_level = options.gzip_level};
  about.documents_are_files =
      std::none_of(files.begin(), files.end(), [](auto& file) { return file.form != RecordForm::none; });
  TokenStoreWriter writer(output, about);
  ProgressLine progress(options.progress, named, total_bytes);
  const bool resumed = writer.documents_done() > 0;
  FileTokenizer work(tokenizer, options, writer, progress, about.loss_mask);
  for (const auto& file : files) work.file(file);
  check<DataError>(writer.num_tokens() > 0, named, ": there is no text in it");
  progress.show(total_bytes, writer.num_tokens(), true);
  const bool labelled = !about.loss_mask || work.notes().labels() > 0;
  const std::string no_labels =
      text(named, ": not one token has a label; the roles in it are ", work.notes().roles(),
           ", expected turns of `assistant` or a `completion`");
  check<DataError>(labelled || resumed, no_labels);
  writer.finish();
  if (labelled || any_label(*TokenStore::open(output))) return;
  std::error_code ignored;
  fs::remove(output, ignored);
  throw DataError(no_labels);
}

// What the names of the stores of `input` begin with.
std::string cache_stem(const std::string& input, const std::string& cache_folder) {
  auto stem = fs::path(input).lexically_normal();
  if (!stem.has_filename()) stem = stem.parent_path();  // "folder/"
  return text(cache_folder, "/", plain_name(stem.string()), "-");
}

bool is_gone(const std::string& input) {
  std::error_code error;
  return !fs::exists(input, error) || (fs::is_directory(input, error) && fs::is_empty(input, error));
}

// The newest store made of `input` under the same settings; nothing when there is none.
std::shared_ptr<TokenStore> store_without_text(const std::string& input, const std::string& settings,
                                               const std::string& cache_folder) {
  const std::string stem = cache_stem(input, cache_folder);
  std::vector<std::pair<fs::file_time_type, std::string>> stores;
  std::error_code error;
  for (fs::directory_iterator at(cache_folder, error), end; !error && at != end; at.increment(error)) {
    std::string path = text(cache_folder, "/", at->path().filename().string());
    if (path.starts_with(stem) && path.ends_with(".h5"))
      stores.emplace_back(fs::last_write_time(path, error), std::move(path));
  }
  std::sort(stores.rbegin(), stores.rend());
  for (const auto& [time, path] : stores) {
    auto store = TokenStore::open(path);
    if (store->about().settings != settings) continue;
    std::cerr << one_line(text(input, " is gone; going on with ", path, ", which was made of it"))
              << std::endl;
    return store;
  }
  return nullptr;
}

}  // namespace

bool holds_tokens(const std::string& path) {
  return path.ends_with(".h5") || path.ends_with(".hdf5") || path.ends_with(".bin");
}

void tokenize_files(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                    const TokenizeOptions& options, const std::string& output) {
  write_store(inputs, expand(inputs, options.text_key), tokenizer, options, output);
}

std::shared_ptr<TokenStore> cached_store(const std::string& input, const Tokenizer& tokenizer,
                                         const TokenizeOptions& options, const std::string& cache_folder) {
  if (is_gone(input))
    if (auto store = store_without_text(input, settings_of({input}, tokenizer, options), cache_folder))
      return store;
  const auto files = expand({input}, options.text_key);
  const std::string path = text(cache_stem(input, cache_folder), state_of(files, tokenizer, options), ".h5");
  std::string damage;
  // Only what is damaged is made anew; what is locked or cannot be read just now is left alone.
  const auto existing = [&]() -> std::shared_ptr<TokenStore> {
    if (!fs::exists(path)) return nullptr;
    try {
      return TokenStore::open(path);
    } catch (const DamagedFile& damaged) {
      damage = damaged.what();
      return nullptr;
    }
  };
  if (auto store = existing()) return store;
  std::error_code error;
  fs::create_directories(cache_folder, error);
  check<DataError>(!error, cache_folder, ": cannot be made: ", error.message());
  const FileLock lock = FileLock::wait(path + ".lock");
  damage.clear();
  if (auto store = existing()) return store;  // another process has made it meanwhile
  if (!damage.empty()) std::cerr << one_line(damage) << "; tokenizing again" << std::endl;
  write_store({input}, files, tokenizer, options, path);
  return TokenStore::open(path);
}

}  // namespace longreach::data
