// Text, compressed text and JSONL to stores, resumed and cached.
#include "data/corpora/tokenize.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "tests/data/corpora/texts.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ::testing::StartsWith;

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

TEST(Tokenize, BeginsTextsAndPromptsWithBosWhereItIsGiven) {
  const TemporaryFolder folder;
  const ByteLevel tokenizer({"<eos>", "<s>", "<|im_start|>", "<|im_end|>"}, true);
  const TokenizeOptions options{.bos = tokenizer.id_of("<s>"), .piece_bytes = 8};
  const auto written = [&](const std::string& name, const std::string& contents) {
    const auto store = store_of({folder.write(name, contents)}, folder, tokenizer, options);
    std::string mask;
    std::vector<uint8_t> labels(static_cast<size_t>(store->num_tokens()));
    if (store->has_loss_mask()) store->read_loss_mask(0, labels);
    for (const uint8_t label : labels) mask += label ? '+' : '-';
    return std::pair(tokenizer.decode(read_all(*store)), store->has_loss_mask() ? mask : "");
  };
  EXPECT_EQ(written("a.txt", "a text that is cut into pieces").first,
            "<s>a text that is cut into pieces<eos>");
  EXPECT_EQ(written("b.txt", "<s>has it").first, "<s>has it<eos>");
  EXPECT_EQ(written("a.jsonl", R"({"text": "one"})"
                               "\n"
                               R"({"text": ""})"
                               "\n"
                               R"({"text": "two"})")
                .first,
            "<s>one<eos><s>two<eos>");
  EXPECT_EQ(written("b.jsonl", R"({"prompt": "ab", "completion": "cd"})"),
            std::pair(std::string("<s>abcd<eos>"), std::string("---+++")));
  const std::string chat = written("c.jsonl", R"({"messages": [{"role": "user", "content": "a"}, )"
                                              R"({"role": "assistant", "content": "b"}]})")
                               .first;
  EXPECT_THAT(chat, StartsWith("<|im_start|>user")) << "a template writes its own";
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

TEST(Tokenize, SaysWhatMakesTextOfTables) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& name, const std::string& content) {
    const std::string path = folder.write(name, content);
    return error_of([&] { store_of({path}, folder); });
  };
  EXPECT_THAT(refusal("a.parquet", "PAR1\x15...."),
              HasSubstr("is a Parquet file, which is not read; this makes"));
  EXPECT_THAT(refusal("a", "PAR1\x15...."), HasSubstr("is a Parquet file, which is not read; this makes"));
  EXPECT_THAT(refusal("b.arrow", std::string("ARROW1\0\0", 8)), HasSubstr("write the text as JSONL"));
  EXPECT_THAT(refusal("c.parquet", "text"), HasSubstr("its name is that of a table, but it holds none"));
  EXPECT_FALSE(std::filesystem::exists(folder.path("store.h5")));
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
  EXPECT_EQ(read_all(*resumed), read_all(*whole));
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
    EXPECT_THAT(error_of([&] { cached(ByteLevel(), {.bos = 1}); }), StartsWith(input));
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

}  // namespace
}  // namespace longreach::data
