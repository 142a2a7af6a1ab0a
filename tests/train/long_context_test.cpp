// Facts asked for behind long texts: a model that says one number always, right where it is the answer.
#include "train/long_context.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/temporary_folder.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "tests/support/small_model.h"
#include "train/chat_form.h"
#include "train/program/long_context_report.h"

namespace longreach {
namespace {

constexpr int64_t kBytes = 257;

// A byte follows each byte, whatever stands before it: those of `path`, one after the other.
SavedModel model_that_says(const std::string& path) {
  SavedModel saved{.path = "rigged", .tokenizer = data::load_tokenizer("bytes")};
  ModelConfig& config = saved.config.model;
  config.vocab_size = kBytes;
  config.hidden_size = 288;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 2;
  config.tie_word_embeddings = false;
  config.resolve(kBytes);
  saved.model = std::make_shared<Transformer>(config, 1);
  const at::NoGradGuard no_grad;
  for (auto& item : saved.model->named_parameters())
    if (item.key().find("norm") == std::string::npos) item.value().zero_();
  const at::Tensor embedding = saved.model->named_parameters()["model.embed_tokens.weight"],
                   head = saved.model->named_parameters()["lm_head.weight"];
  for (int64_t byte = 0; byte < kBytes; ++byte) embedding[byte][byte] = 1.0;
  for (size_t i = 0; i + 1 < path.size(); ++i) head[path[i + 1]][path[i]] = 1.0;
  return saved;
}

// The answer of the first sample of passkey whose digits differ, so that a path of bytes can say it.
struct Sayable {
  int64_t number;
  std::string answer;
};
Sayable sayable(const LongContextOptions& options) {
  const auto bytes = data::load_tokenizer("bytes");
  for (int64_t number = 0;; ++number) {
    const std::string answer = data::synthesize({.task = "passkey",
                                                 .length = options.lengths[0],
                                                 .reply_tokens = 16,
                                                 .depth = options.depths[0],
                                                 .seed = options.seed,
                                                 .sample = number},
                                                data::Haystack::repeated(*bytes), *bytes)
                                   .answer;
    if (std::set<char>(answer.begin(), answer.end()).size() == answer.size()) return {number, answer};
  }
}

TEST(LongContext, CountsTheAnswersThatAreRight) {
  LongContextOptions options{.tasks = {"passkey"}, .lengths = {400, 500}, .depths = {0, 1}, .seed = 5};
  const Sayable known = sayable(options);
  options.samples = known.number + 2;
  const auto cells = evaluate_long_context(model_that_says("s" + known.answer + "."), options);
  ASSERT_EQ(cells.size(), 4u);
  for (const LongContextCell& cell : cells) {
    ASSERT_EQ(std::ssize(cell.answers), options.samples);
    for (const LongContextAnswer& answer : cell.answers) {
      const bool wanted = " " + answer.expected == known.answer;
      EXPECT_EQ(answer.right, wanted);
      EXPECT_EQ(answer.reply, known.answer + ".");
      EXPECT_LE(answer.tokens, cell.length - 16);
      EXPECT_EQ(answer.depth, cell.depth);
      // A normed unit vector of 288 has the length sqrt(288): that is the logit of what is said.
      const double said = std::log1p(256 * std::exp(-std::sqrt(288.0)));
      if (wanted)
        EXPECT_NEAR(answer.nll, said, 4e-6);  // of logits near 17 in float32
      else
        EXPECT_GT(answer.nll, 2.0);
    }
  }
  const double share = 1.0 / static_cast<double>(options.samples);
  EXPECT_DOUBLE_EQ(cells[0].accuracy(), share);
  EXPECT_EQ(cells[3].accuracy(), 0.0);
}

TEST(LongContext, TakesTheFirstNumberOfAReply) {
  EXPECT_EQ(first_number(" 12345. 6"), "12345");
  EXPECT_EQ(first_number("**7"), "7");
  EXPECT_EQ(first_number("none"), "");
}

TEST(LongContext, PositionsReachAsFarAsRopeScalingStretchesThem) {
  ModelConfig config;
  config.max_position_embeddings = 512;
  config.resolve(kBytes);
  EXPECT_EQ(positions_of(config), 512);
  config.rope.factor = 4.0;
  EXPECT_EQ(positions_of(config), 512);
  for (const char* type : {"linear", "yarn", "llama3"}) {
    config.rope.rope_type = type;
    config.rope.original_max_position_embeddings = 0;
    EXPECT_EQ(positions_of(config), 2048) << type;
    config.rope.original_max_position_embeddings = 64;
    EXPECT_EQ(positions_of(config), 512) << type;
  }
  config.rope.rope_type = "dynamic";
  EXPECT_EQ(positions_of(config), 64);
}

TEST(LongContext, RefusesBeforeItComputes) {
  const SavedModel saved = model_that_says("s 1.");
  LongContextOptions options{.tasks = {"niah"}, .lengths = {600, 4096}, .depths = {0}};
  const auto evaluate = [&](const SavedModel& model) {
    return [&] { evaluate_long_context(model, options, [](int64_t, int64_t) { FAIL() << "it has begun"; }); };
  };
  test::expect_error<UserError>("length 4096: the model has positions for 2048 tokens", evaluate(saved));
  options.lengths = {600, 100};
  test::expect_error<DataError>("length 100: too short for niah", evaluate(saved));
  options.lengths = {600};
  options.haystack = "/nowhere.txt";
  test::expect_error<DataError>("/nowhere.txt: ", evaluate(saved));
  const SavedModel silent{.path = "silent", .config = saved.config, .model = saved.model};
  test::expect_error<CheckpointError>("silent: the model came without a tokenizer", evaluate(silent));
}

TEST(LongContext, PromptsGoThroughTheTemplateThatCameWithTheModel) {
  SavedModel saved{.path = "model"};
  EXPECT_FALSE(chat_form(saved).has_value());
  saved.tokenizer = data::load_tokenizer("bytes");
  EXPECT_FALSE(chat_form(saved).has_value());
  saved.texts["tokenizer/tokenizer_config.json"] = "{\"eos_token\": \"</s>\"}";
  EXPECT_FALSE(chat_form(saved).has_value());
  const std::string chat =
      "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}{{ strftime_now('%Y') }}";
  nlohmann::json config{{"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}, {"chat_template", chat}};
  saved.texts["tokenizer/tokenizer_config.json"] = config.dump();
  const std::string expected = "<s><user>Where?</s><assistant>2024It is";
  EXPECT_EQ(chat_form(saved).value()("Where?", "It is"), expected);
  config["chat_template"] = {{{"name", "tools"}, {"template", "no"}},
                             {{"name", "default"}, {"template", chat}}};
  saved.texts["tokenizer/tokenizer_config.json"] = config.dump();
  EXPECT_EQ(chat_form(saved).value()("Where?", "It is"), expected);
  saved.texts["tokenizer/chat_template.jinja"] = "{{ messages[0].content }}: ";
  EXPECT_EQ(chat_form(saved).value()("Where?", "It is"), "Where?: It is");
  saved.texts["tokenizer/chat_template.jinja"] = "\n{% include 'x' %}";
  test::expect_error<DataError>("model: chat_template, line 2", [&] { chat_form(saved).value()("?", ""); });
}

// As a prompt that spells it out.
TEST(LongContext, BosGoesBeforeAPromptAndCountsInItsLength) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", test::read_text(LONGREACH_SOURCE_DIR "/tests/data/files/bpe_smollm.json"));
  folder.write("tokenizer_config.json", R"({"bos_token": "<|im_start|>"})");
  SavedModel saved{.path = "small", .tokenizer = data::load_tokenizer(folder.path())};
  saved.config.model = test::small_model();
  saved.config.model.max_position_embeddings = 512;
  saved.config.model.resolve(saved.tokenizer->vocab_size());
  saved.model = std::make_shared<Transformer>(saved.config.model, 3);
  saved.model->eval();
  const auto answers = [&](bool bos, const data::PromptForm& form) {
    const LongContextOptions options{.tasks = {"passkey"},
                                     .lengths = {300},
                                     .depths = {0.5},
                                     .samples = 2,
                                     .form = form,
                                     .begins_with_bos = bos};
    return evaluate_long_context(saved, options)[0].answers;
  };
  const auto spelt = answers(false, [](const std::string& request, const std::string& beginning) {
    return "<|im_start|>" + data::plain_prompt(request, beginning);
  });
  const auto without = answers(false, data::plain_prompt), with = answers(true, data::plain_prompt);
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].tokens, spelt[i].tokens);
    EXPECT_EQ(with[i].nll, spelt[i].nll);
    EXPECT_NE(with[i].nll, without[i].nll);
  }
}

LongContextCell cell(int64_t length, double depth, std::vector<std::pair<bool, double>> answers) {
  LongContextCell made{.task = "niah", .length = length, .depth = depth};
  for (const auto& [right, nll] : answers)
    made.answers.push_back(
        {.expected = "1", .reply = "2", .right = right, .nll = nll, .tokens = 9, .depth = 0.25});
  return made;
}

TEST(LongContext, IsReportedByLengthAndDepth) {
  const LongContextOptions options{
      .tasks = {"niah"}, .lengths = {512, 1024}, .depths = {0, 0.5}, .samples = 2};
  const std::vector<LongContextCell> cells{
      cell(512, 0, {{true, 0.5}, {true, 0.25}}), cell(512, 0.5, {{true, 1}, {false, 2}}),
      cell(1024, 0, {{false, 3}, {false, 5}}), cell(1024, 0.5, {{true, 0}, {false, 1}})};
  EXPECT_EQ(to_tables(options, cells),
            "niah: right answers (samples of each length and depth: 2)\n\n"
            "| tokens |      0 |    0.5 |    all |\n|-------:|-------:|-------:|-------:|\n"
            "|    512 |   100% |    50% |    75% |\n|   1024 |     0% |    50% |    25% |\n"
            "\nniah: negative log-likelihood of the answer, nats a token\n\n"
            "| tokens |      0 |    0.5 |    all |\n|-------:|-------:|-------:|-------:|\n"
            "|    512 |  0.375 |  1.500 |  0.938 |\n|   1024 |  4.000 |  0.500 |  2.250 |\n");
  const auto json = to_json({.path = "model", .step = 3}, options, false, cells);
  EXPECT_EQ(json["tasks"][0]["task"], "niah");
  EXPECT_EQ(json["tasks"][0]["cells"].size(), 4u);
  EXPECT_EQ(json["tasks"][0]["cells"][1]["accuracy"], 0.5);
  EXPECT_EQ(json["tasks"][0]["cells"][2]["nll"], 4.0);
  EXPECT_EQ(json["tasks"][0]["cells"][2]["answers"][1]["nll"], 5.0);
  const TemporaryFolder folder;
  const auto files = write_report(folder.path("new/report"), json, options, cells);
  EXPECT_EQ(nlohmann::ordered_json::parse(test::read_text(files.at(0))), json);
  EXPECT_EQ(test::read_text(files.at(1)), to_tables(options, cells));
  test::expect_error<UserError>("long_context.json: cannot be written",
                                [&] { write_report(files[0], json, options, cells); });
}

}  // namespace
}  // namespace longreach
