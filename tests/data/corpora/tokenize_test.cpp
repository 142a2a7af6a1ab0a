// Text, compressed text, JSONL and chat templates to stores; corpora as configs name them.
#include "data/corpora/tokenize.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <chrono>
#include <csignal>

#include "core/config.h"
#include "data/corpora/byte_stream.h"
#include "data/corpora/chat.h"
#include "data/corpora/fetch.h"
#include "data/loader.h"
#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string gzip(const std::string& text) {
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

std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

std::string stream_of(const std::string& path) {
  const auto stream = open_stream(path);
  std::string all, block(777, '\0');
  while (const int64_t got = stream->read(block.data(), 777)) all.append(block, 0, static_cast<size_t>(got));
  return all;
}

std::string random_text(size_t size) {
  std::string text;
  for (const Token token : random_tokens(static_cast<int64_t>(size), 256, 1))
    text += static_cast<char>(token & 0x4f);
  return text;
}

std::vector<Token> all_tokens(const TokenStore& store) {
  std::vector<Token> tokens(static_cast<size_t>(store.num_tokens()));
  store.read(0, tokens);
  return tokens;
}

std::shared_ptr<TokenStore> store_of(const std::vector<std::string>& inputs, const TemporaryFolder& folder,
                                     const Tokenizer& tokenizer = ByteLevel(),
                                     const TokenizeOptions& options = {}) {
  tokenize_files(inputs, tokenizer, options, folder.path("store.h5"));
  return TokenStore::open(folder.path("store.h5"));
}

TEST(ByteStream, DecompressesGzipAndZstd) {
  const TemporaryFolder folder;
  const std::string text = random_text(1000000);
  EXPECT_TRUE(stream_of(folder.write("a.txt", text)) == text);
  EXPECT_TRUE(stream_of(folder.write("a.gz", gzip(text))) == text);
  EXPECT_TRUE(stream_of(folder.write("b.gz", gzip(text) + gzip("more"))) == text + "more");
  EXPECT_TRUE(stream_of(folder.write("a.zst", zstd(text))) == text);
  EXPECT_TRUE(stream_of(folder.write("b.zst", zstd(text) + zstd("more"))) == text + "more");
  for (const char* name : {"c.gz", "c.zst"}) {
    const std::string packed = name == std::string("c.gz") ? gzip(text) : zstd(text);
    for (size_t part = 0; part < 20; ++part) {
      const auto path = folder.write(name, packed.substr(0, packed.size() * part / 20));
      EXPECT_THAT(error_of([&] { stream_of(path); }), StartsWith(path));
    }
    const auto path = folder.write(name, "not packed at all");
    EXPECT_THAT(error_of([&] { stream_of(path); }), StartsWith(path));
  }
}

// The same bytes under any name; what cannot be unpacked is named, and never text.
TEST(ByteStream, KnowsPackedFilesByTheirContent) {
  using namespace std::string_literals;
  const TemporaryFolder folder;
  const std::string text = random_text(5000), zeros(700, '\0');
  for (const std::string name : {"a", "A.TXT", "a.txt.GZ", "a.xz"}) {
    EXPECT_TRUE(stream_of(folder.write(name, gzip(text))) == text) << name;
    EXPECT_TRUE(stream_of(folder.write(name, gzip(text) + gzip("more") + zeros)) == text + "more") << name;
    EXPECT_TRUE(stream_of(folder.write(name, zstd(text))) == text) << name;
    const std::string skipped = "\x5F\x2A\x4D\x18\x03\0\0\0abc"s;
    EXPECT_TRUE(stream_of(folder.write(name, skipped + zstd(text) + skipped)) == text) << name;
  }
  EXPECT_THAT(error_of([&] { stream_of(folder.write("a.gz", gzip(text) + zeros + "x")); }),
              HasSubstr("no gzip data"));
  const std::vector<std::pair<std::string, std::string>> foreign{
      {"\xFD\x37zXZ\0...."s, "xz"},
      {"BZh91AY&SY....", "bzip2"},
      {"PK\x03\x04....", "zip archive"},
      {"7z\xBC\xAF\x27\x1C", "7z archive"},
      {std::string(257, 'n') + "ustar", "tar archive"},
  };
  for (const auto& [bytes, expected] : foreign) {
    for (const std::string& file : {bytes, gzip(bytes), zstd(bytes)}) {
      const auto path = folder.write("b.txt", file);
      const auto message = error_of([&] { stream_of(path); });
      EXPECT_THAT(message, StartsWith(path));
      EXPECT_THAT(message, HasSubstr(expected));
    }
  }
  EXPECT_THAT(error_of([&] { stream_of(folder.write("c.gz", gzip(zstd(text)))); }),
              HasSubstr("packed twice"));
  EXPECT_THAT(error_of([&] { stream_of(folder.write("d.GZ", text)); }), HasSubstr("name ends in .gz"));
  for (const std::string words : {"BZh9 is no archive", "PK and 7z", "Rar!"})
    EXPECT_EQ(stream_of(folder.write("e.txt", words)), words);
}

// A window of 2 GiB for 2 kB, as `zstd --long=31` asks for when it does not know the size.
TEST(ByteStream, ReadsLongZstdWindows) {
  const TemporaryFolder folder;
  const std::string text = random_text(3000);
  for (const int log : {27, 31}) {
    std::string frame = zstd(text);
    // The header of a frame without its size: magic, descriptor 0, window (exponent - 10) << 3.
    const auto size_bytes = 2 * (static_cast<unsigned char>(frame[4]) >> 6);
    frame = frame.substr(0, 4) + '\0' + static_cast<char>((log - 10) << 3) +
            frame.substr(5 + static_cast<size_t>(size_bytes == 0 ? 1 : size_bytes));
    EXPECT_TRUE(stream_of(folder.write("a.zst", frame)) == text) << log;
  }
  const auto wide =
      folder.write("b.zst", zstd(text).substr(0, 4) + '\0' + static_cast<char>(22 << 3) + "abc");
  EXPECT_THAT(error_of([&] { stream_of(wide); }), HasSubstr("window of more than 2 GiB"));
}

TEST(LineReader, CutsLines) {
  const TemporaryFolder folder;
  LineReader reader(folder.write("l", "a\n\nbc\r\n" + std::string(700000, 'x') + "\nlast"));
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"a", "", "bc\r", std::string(700000, 'x'), "last"}));
  LineReader limited(folder.path("l"), 1000);
  EXPECT_THAT(error_of([&] {
                for (std::string line; limited.next(line);) {
                }
              }),
              HasSubstr("l:4: line of more than"));
}

TEST(Tokenize, MakesEachFileOfAFolderADocument) {
  const TemporaryFolder folder;
  folder.write("in/b.txt", "second");
  folder.write("in/a/z.txt.gz", gzip("first"));
  folder.write("in/c.zst", zstd(std::string("\xff\x00\xfe", 3)));
  folder.write("in/empty.txt", "");
  folder.write("in/.hidden", "no");
  const ByteLevel tokenizer({"<eos>"}, true);
  const auto store = store_of({folder.path("in")}, folder, tokenizer);
  EXPECT_EQ(tokenizer.decode(read_all(*store)), std::string("first<eos>second<eos>\xff\x00\xfe<eos>", 29));
  EXPECT_EQ(store->document_offsets(), (std::vector<int64_t>{0, 6, 13, 17}));
  EXPECT_TRUE(store->about().documents_are_files);
  EXPECT_FALSE(store->has_loss_mask());
}

TEST(Tokenize, CutsLongDocumentsWithoutLoss) {
  const TemporaryFolder folder;
  std::string text = random_text(80 << 20);
  const auto store = store_of({folder.write("long.txt", text)}, folder);
  EXPECT_EQ(store->document_offsets().size(), 2u);
  EXPECT_TRUE(ByteLevel().decode(read_all(*store)) == text);
}

TEST(Tokenize, ReadsJsonLines) {
  const TemporaryFolder folder;
  const auto path =
      folder.write("a.jsonl", "{\"text\": \"one\"}\n\n{\"text\": \"tw\\u00f6\", \"id\": 3}\r\n");
  const auto store = store_of({path}, folder);
  EXPECT_EQ(ByteLevel().decode(read_all(*store)), "onetwö");
  EXPECT_EQ(store->document_offsets(), (std::vector<int64_t>{0, 3, 7}));
  EXPECT_FALSE(store->has_loss_mask());
  EXPECT_FALSE(store->about().documents_are_files);
  const auto keyed = store_of({folder.write("k.jsonl.gz", gzip("{\"body\": \"x\"}"))}, folder, ByteLevel(),
                              {.text_key = "body"});
  EXPECT_EQ(ByteLevel().decode(read_all(*keyed)), "x");
}

TEST(Tokenize, NamesTheLineThatIsWrong) {
  const TemporaryFolder folder;
  const std::string good = "{\"text\": \"fine\"}\n";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"nonsense", "is not valid JSON: column 2: syntax error"},
      {"{\"text\": \"\xff\"}", "is not valid JSON: it is not UTF-8"},
      {"{\"text\": \"\\ud83d\"}", "it has a lone surrogate"},
      {"{\"text\": 1e999}", "number overflow"},
      {"{\"text\": \"a\", \"n\": NaN}", "NaN and Infinity are no JSON numbers"},
      {std::string("\xFF\xFE{\0", 4), "UTF-16"},
      {"{\"messages\": [{\"role\": \"narrator\", \"content\": \"x\"}]}", "the role `narrator` is not known"},
      {"{\"messages\": [], \"prompt\": \"a\", \"completion\": \"b\"}", "and also `prompt`"},
      {"{\"conversations\": [{\"role\": 1}]}", "`role` is number"},
      {"[1, 2]", "not a JSON object"},
      {"{\"other\": 1}", "neither `text` (data.text_key)"},
      {"{\"text\": 1}", "`text` is number, expected a string"},
      {"{\"messages\": []}", "`messages` must be a list"},
      {"{\"messages\": [{\"role\": \"user\"}]}", "`content` is missing"},
      {"{\"prompt\": \"a\", \"completion\": null}", "`completion` is null"},
      {"{\"prompt\": \"a\", \"completion\": \"b\"}", "began with plain text"},
  };
  for (const auto& [line, expected] : cases) {
    const auto path = folder.write("bad.jsonl", good + line + "\n");
    const auto message = error_of([&] { store_of({path}, folder); });
    EXPECT_THAT(message, HasSubstr(expected));
    EXPECT_THAT(message, StartsWith(path + ":2: "));
  }
}

// ShareGPT's and Alpaca's fields, and roles of other names, by rules that are said once.
TEST(Tokenize, ReadsExamplesInTheFormsOfDataSets) {
  const TemporaryFolder folder;
  const std::string turns = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
  const std::string share =
      R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})";
  ::testing::internal::CaptureStderr();
  const auto store = store_of(
      {folder.write(
          "a.jsonl",
          share + "\n" + share + "\n" +
              R"({"messages": [{"role": "USER", "content": "q"}, {"role": "model", "content": "a"}]})"
              "\n"
              R"({"instruction": "q", "input": "", "output": "a"})"
              "\n"
              R"({"instruction": "q", "input": "i", "output": "a"})")},
      folder);
  const std::string said = ::testing::internal::GetCapturedStderr();
  const std::string text = ByteLevel().decode(read_all(*store)), one = turns + "a<|im_end|>\n";
  EXPECT_EQ(text.substr(0, 4 * one.size()), one + one + one + one);
  EXPECT_THAT(text, HasSubstr("user\nq\n\ni<|im_end|>"));
  EXPECT_TRUE(store->has_loss_mask());
  for (const std::string rule :
       {"the role `gpt` is read as `assistant`", "the role `model` is", "`input` are read"}) {
    EXPECT_THAT(said, HasSubstr(rule));
    EXPECT_EQ(said.find(rule), said.rfind(rule));
  }
}

TEST(Tokenize, ReadsArraysOfJson) {
  const TemporaryFolder folder;
  const std::string array = "\xEF\xBB\xBF[\n {\"text\": \"one, ]}\\\"\"},\n {\"text\": \"two\"}\n]\n";
  const auto store = store_of({folder.write("a.json", array)}, folder);
  EXPECT_EQ(ByteLevel().decode(read_all(*store)), "one, ]}\"two");
  EXPECT_EQ(store->document_offsets(), (std::vector<int64_t>{0, 8, 11}));
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  for (const std::string name : {"b.json.gz", "no ending", "c.NDJSON"})
    EXPECT_EQ(
        store_of({folder.write(name, name == "b.json.gz" ? gzip(lines) : lines)}, folder)->document_offsets(),
        (std::vector<int64_t>{0, 3, 6}))
        << name;
  const std::string settings = "{\"private\": true}";  // a text like any other file of a folder
  EXPECT_EQ(ByteLevel().decode(read_all(*store_of({folder.write("d.json", settings)}, folder))), settings);
  for (const auto& [content, expected] : std::vector<std::pair<std::string, std::string>>{
           {"[1, 2]", "e.json:1: found `1`, expected an object"},
           {"[{\"text\": \"a\"}\n {\"text\": \"b\"}]", "e.json:2: found `{`, expected `,`"},
           {"[{\"text\": \"a\"},\n{\"text\": 3}]", "e.json:2: `text` is number"},
           {"[{\"text\": \"a\"}", "does not end"},
           {"[{\"text\": \"a\"}] x", "nothing behind the array"}})
    EXPECT_THAT(error_of([&] { store_of({folder.write("e.json", content)}, folder); }), HasSubstr(expected));
}

TEST(Tokenize, RefusesExamplesWithoutALabel) {
  const TemporaryFolder folder;
  const std::string line = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n";
  const auto path = folder.write("a.jsonl", line + line);
  for (int attempt = 0; attempt < 2; ++attempt) {  // the second goes on where the first ended
    EXPECT_THAT(error_of([&] { store_of({path}, folder); }), HasSubstr("not one token has a label"));
    EXPECT_FALSE(std::filesystem::exists(folder.path("store.h5")));
  }
}

TEST(Tokenize, RefusesEmptyInputs) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path("none"));
  EXPECT_THAT(error_of([&] { store_of({folder.path("none")}, folder); }), HasSubstr("holds no files"));
  EXPECT_THAT(error_of([&] { store_of({folder.write("e.txt", "")}, folder); }), HasSubstr("is empty"));
  EXPECT_THAT(error_of([&] { store_of({folder.path("missing.txt")}, folder); }), HasSubstr("no such file"));
  EXPECT_THAT(error_of([&] { store_of({folder.write("b.jsonl", "\n\n")}, folder); }), HasSubstr("no text"));
  folder.write("empties/a", "");
  folder.write("empties/b", "");
  EXPECT_THAT(error_of([&] { store_of({folder.path("empties")}, folder, ByteLevel({"<eos>"}, true)); }),
              HasSubstr("no text"));
}

// A tokenizer that dies at the n-th document.
class Dying : public ByteLevel {
 public:
  explicit Dying(int after) : after_(after) {}
  std::vector<Token> encode(std::string_view text, bool special) const override {
    if (after_-- == 0) throw std::runtime_error("killed");
    return ByteLevel::encode(text, special);
  }

 private:
  mutable int after_;
};

TEST(Tokenize, GoesOnWhereItWasKilled) {
  const TemporaryFolder folder;
  for (int i = 0; i < 12; ++i)
    folder.write("in/" + std::to_string(100 + i), std::string(1 << 18, static_cast<char>('a' + i)));
  tokenize_files({folder.path("in")}, ByteLevel(), {}, folder.path("whole.h5"));
  const Dying first(10), second(3);
  EXPECT_THROW(tokenize_files({folder.path("in")}, first, {}, folder.path("r.h5")), std::runtime_error);
  EXPECT_THROW(tokenize_files({folder.path("in")}, second, {}, folder.path("r.h5")),
               std::runtime_error);  // documents 8, 9, 10
  const Dying last(4);               // 8 documents were kept: it has to encode four
  tokenize_files({folder.path("in")}, last, {}, folder.path("r.h5"));
  const auto resumed = TokenStore::open(folder.path("r.h5")),
             whole = TokenStore::open(folder.path("whole.h5"));
  EXPECT_NO_THROW(resumed->verify());
  EXPECT_EQ(resumed->document_offsets(), whole->document_offsets());
  EXPECT_EQ(all_tokens(*resumed), all_tokens(*whole));
}

// Text with the labelled parts in brackets.
std::string marked(const Tokenizer& tokenizer, const LabelledTokens& example) {
  std::string text;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    const bool before = i > 0 && example.mask[i - 1] != 0, now = example.mask[i] != 0;
    if (before && !now) text += ']';
    if (!before && now) text += '[';
    text += tokenizer.decode({{example.tokens[i]}});
  }
  if (!example.mask.empty() && example.mask.back() != 0) text += ']';
  return text;
}

const std::vector<ChatMessage> kChat{{"system", "Be kind."},
                                     {"user", " Hi <|im_end|>"},
                                     {"assistant", " Hello!\n"},
                                     {"user", "Bye"},
                                     {"assistant", "Bye."}};

TEST(Chat, RendersChatMl) {
  const std::string expected =
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi <|im_end|><|im_end|>\n"
      "<|im_start|>assistant\n[ Hello!\n<|im_end|>]\n<|im_start|>user\nBye<|im_end|>\n"
      "<|im_start|>assistant\n[Bye.<|im_end|>";
  const ByteLevel plain, special({"<|im_end|>", "<|im_start|>"}, true), other({"<eos>"}, true);
  EXPECT_EQ(marked(plain, render_chat(plain, kChat, "chatml")), expected + "\n]");
  EXPECT_EQ(marked(other, render_chat(other, kChat, "chatml")), expected + "\n<eos>]");
  const std::vector<ChatMessage> asked(kChat.begin(), kChat.end() - 1);  // nothing is learnt after a question
  EXPECT_THAT(marked(other, render_chat(other, asked, "chatml")), EndsWith("Bye<|im_end|>\n<eos>"));
  EXPECT_THAT(marked(other, render_chat(other, kChat, "llama3")), EndsWith("[Bye.<|eot_id|><eos>]"));
  const auto tokens = render_chat(special, kChat, "chatml");
  EXPECT_EQ(marked(special, tokens), expected + "]\n");
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 256),
            5);  // the user's own marker is plain text
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 257), 5);
}

TEST(Chat, RendersLlama3) {
  const ByteLevel special(
      {"<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
      true);
  const auto tokens = render_chat(special, kChat, "llama3");
  EXPECT_EQ(marked(special, tokens),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi <|im_end|><|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Hello!<|eot_id|>]"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Bye.<|eot_id|>]");
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 257), 1);
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 260), 5);
  EXPECT_THAT(error_of([&] { render_chat(special, kChat, "alpaca"); }), HasSubstr("chatml, llama3"));
  EXPECT_EQ(end_of_turn("llama3"), "<|eot_id|>");
  EXPECT_EQ(end_of_turn("chatml"), "<|im_end|>");
}

TEST(Chat, ReachesTheLabelsOfABatch) {
  const TemporaryFolder folder;
  const auto path = folder.write("c.jsonl",
                                 "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"},"
                                 " {\"role\": \"assistant\", \"content\": \"answer\"}]}\n"
                                 "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n");
  const auto tokenizer =
      std::make_shared<ByteLevel>(std::vector<std::string>{"<|im_end|>", "<|im_start|>"}, true);
  const std::shared_ptr<const TokenSource> store = store_of({path}, folder, *tokenizer);
  EXPECT_TRUE(store->has_loss_mask());
  const TrainLoader loader({tokenizer, {store}, {}, {1.0}}, {.seq_len = 64});
  std::vector<Token> labels;
  for (const int64_t label : loader.batch(0, 1).labels)
    if (label != kIgnoreLabel) labels.push_back(static_cast<Token>(label));
  EXPECT_EQ(tokenizer->decode(labels), "answer<|im_end|>4<|im_end|>");
}

TEST(Cache, DependsOnTheFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.txt", "first text");
  const auto cached = [&] { return cached_store(path, ByteLevel(), {}, folder.path("cache")); };
  const std::string name = cached()->name();
  const auto written = std::filesystem::last_write_time(name);
  EXPECT_EQ(cached()->name(), name);
  EXPECT_EQ(std::filesystem::last_write_time(name), written);
  folder.write("a.txt", "other text!");
  EXPECT_NE(cached()->name(), name);
  EXPECT_EQ(ByteLevel().decode(read_all(*cached())), "other text!");
  EXPECT_NE(cached_store(path, ByteLevel({"<eos>"}), {}, folder.path("cache"))->name(), cached()->name());
  const std::string damaged = cached()->name();
  std::filesystem::resize_file(damaged, 600);
  EXPECT_EQ(ByteLevel().decode(read_all(*cached())), "other text!");
}

TEST(Cache, KeepsWhatIsLocked) {
  const TemporaryFolder folder;
  const auto path = folder.write("a.txt", "first text");
  const auto cached = [&] { return cached_store(path, ByteLevel(), {}, folder.path("cache")); };
  const std::string name = cached()->name(), contents = contents_of(name);
  const int other = ::open(name.c_str(), O_RDWR);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_THAT(error_of(cached), HasSubstr("locked by another program"));
  ::close(other);
  EXPECT_TRUE(contents_of(name) == contents);
  EXPECT_EQ(ByteLevel().decode(read_all(*cached())), "first text");
}

TEST(Cache, OutlivesTheText) {
  const TemporaryFolder folder;
  const std::string cache = folder.path("cache");
  for (const std::string& input : {folder.write("a.txt", "some text"), folder.path("books")}) {
    folder.write("books/1.txt", "some text");
    const auto cached = [&](const Tokenizer& tokenizer, const TokenizeOptions& options) {
      return cached_store(input, tokenizer, options, cache);
    };
    const std::string first = cached(ByteLevel(), {})->name();
    std::filesystem::last_write_time(first,
                                     std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
    const std::string file = std::filesystem::is_directory(input) ? "books/1.txt" : "a.txt";
    folder.write(file, "newer text");
    const std::string second = cached(ByteLevel(), {})->name();
    std::filesystem::remove(folder.path(file));
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(cached(ByteLevel(), {})->name(), second);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr(input + " is gone; going on with " + second));
    EXPECT_THAT(error_of([&] { cached(ByteLevel({"<eos>"}), {}); }), StartsWith(input));
    EXPECT_THAT(error_of([&] { cached(ByteLevel(), {.text_key = "body"}); }), StartsWith(input));
    EXPECT_THAT(error_of([&] { cached_store(folder.path("other/a.txt"), ByteLevel(), {}, cache); }),
                HasSubstr("no such file or folder"));
  }
}

// Says on a pipe that it has come to its 250th document, and stays there.
class Stuck : public ByteLevel {
 public:
  explicit Stuck(int pipe) : pipe_(pipe) {}
  std::vector<Token> encode(std::string_view text, bool special = true) const override {
    if (++documents_ == 250 && ::write(pipe_, "!", 1) == 1)
      while (true) ::pause();
    return ByteLevel::encode(text, special);
  }

 private:
  int pipe_;
  mutable int documents_ = 0;
};

// SIGTERM ends it wherever it is; the next call goes on at the last checkpoint.
TEST(Tokenize, EndsAtOnceAndGoesOnAfterSigterm) {
  const TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 300; ++i)
    lines += "{\"text\": \"" + std::string(5000, static_cast<char>('a' + i % 26)) + "\"}\n";
  const auto input = folder.write("a.jsonl", lines), output = folder.path("out.h5");
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t process = ::fork();
  if (process == 0) {
    tokenize_files({input}, Stuck(pipe[1]), {}, output);
    ::_exit(0);
  }
  char said = 0;
  ASSERT_EQ(::read(pipe[0], &said, 1), 1);
  ASSERT_EQ(::kill(process, SIGTERM), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(process, &status, 0), process);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  ::close(pipe[0]);
  ::close(pipe[1]);
  EXPECT_FALSE(std::filesystem::exists(output));
  EXPECT_THAT(contents_of(output + ".partial/progress.json"), HasSubstr("\"documents_done\":210"));
  // What was written then is not tokenized again: it is taken as it lies there.
  std::fstream(output + ".partial/tokens", std::ios::in | std::ios::out | std::ios::binary) << 'z';
  tokenize_files({input}, ByteLevel(), {}, output);
  auto tokens = read_all(*TokenStore::open(output));
  EXPECT_EQ(tokens.front(), 'z');
  tokens.front() = 'a';
  tokenize_files({input}, ByteLevel(), {}, folder.path("whole.h5"));
  EXPECT_EQ(tokens, read_all(*TokenStore::open(folder.path("whole.h5"))));
}

DataConfig config_of(std::vector<std::string> train) {
  DataConfig config;
  config.train = std::move(train);
  return config;
}

TEST(OpenCorpus, MixesStoresAndText) {
  const TemporaryFolder folder;
  const auto text = folder.write("a.txt", std::string(900, 'a')),
             more = folder.write("b.txt", std::string(100, 'b'));
  tokenize_files({more}, *load_tokenizer("bytes"), {}, folder.path("b.h5"));
  const std::vector<uint16_t> flat(200, 'c');
  const auto bin = folder.write("c.bin", {reinterpret_cast<const char*>(flat.data()), 400});
  auto config = config_of({text, folder.path("b.h5"), bin});
  const auto corpus = open_corpus(config, folder.path("cache"));
  ASSERT_EQ(corpus.train.size(), 3u);
  ASSERT_EQ(corpus.valid.size(), 3u);
  const int64_t eos = corpus.tokenizer->eos() ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(corpus.train[0]->num_tokens()), 855, static_cast<double>(eos));
  EXPECT_EQ(corpus.train[2]->num_tokens(), 190);
  EXPECT_NEAR(corpus.probabilities[0], 0.75, 1e-3);
  const auto size = size_of(corpus.valid);
  EXPECT_EQ(size.documents, 3);
  EXPECT_EQ(size.longest, 45);
  config.data_probs = {1, 1, 2};
  config.valid = {text};
  const auto explicit_valid = open_corpus(config, folder.path("cache"));
  EXPECT_EQ(explicit_valid.probabilities, (std::vector<double>{0.25, 0.25, 0.5}));
  EXPECT_EQ(explicit_valid.train[2]->num_tokens(), 200);
  EXPECT_EQ(explicit_valid.valid.size(), 1u);
}

TEST(OpenCorpus, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { open_corpus(config_of({}), folder.path("c")); }),
              HasSubstr("data.train is empty"));
  auto config = config_of({folder.write("a.txt", "some text that is long enough")});
  config.data_probs = {1, 2};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }),
              HasSubstr("data.data_probs has 2 values"));
  config.data_probs = {-1};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }), HasSubstr("allowed: numbers >= 0"));
  config.data_probs = {0};
  EXPECT_THAT(error_of([&] { open_corpus(config, folder.path("c")); }), HasSubstr("0 for every entry"));
  tokenize_files(config.train, ByteLevel({"<eos>"}), {}, folder.path("other.h5"));
  EXPECT_THAT(error_of([&] { open_corpus(config_of({folder.path("other.h5")}), folder.path("c")); }),
              HasSubstr("was made with the tokenizer"));
}

TEST(DataConfig, RefusesProbabilitiesByKey) {
  DataConfig config;
  const auto read = [&](const std::string& toml) {
    ConfigDocument::from_text(toml, "t.toml").read(fields_of(config));
  };
  read("train = [\"a\", \"b\"]\ndata_probs = [0.5, 0.5]");
  EXPECT_EQ(config.data_probs.size(), 2u);
  EXPECT_THROW(read("train = [\"a\", \"b\"]\ndata_probs = [0.5]"), ConfigError);
  EXPECT_THROW(read("train = [\"a\"]\ndata_probs = [-0.5]"), ConfigError);
  EXPECT_THROW(read("train = [\"a\"]\ndata_probs = []\nvalid_fraction = 1.5"), ConfigError);
}

TEST(Fetch, KnowsItsCorporaAndLeavesForeignFoldersAlone) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { fetch_corpus("shakespear"); }), HasSubstr("did you mean `shakespeare`?"));
  folder.write("taken/file", "mine");
  EXPECT_THAT(error_of([&] { fetch_corpus("shakespeare", folder.path("taken")); }),
              HasSubstr("is there already"));
  EXPECT_EQ(contents_of(folder.path("taken/file")), "mine");
  // A corpus that is there is not fetched again.
  folder.write("have/text/a.txt", "To be");
  folder.write("have/SOURCE.txt", "shakespeare");
  const auto corpus = fetch_corpus("shakespeare", folder.path("have/"));
  EXPECT_EQ(corpus.files, 1);
  EXPECT_EQ(corpus.bytes, 5);
}

}  // namespace
}  // namespace longreach::data
