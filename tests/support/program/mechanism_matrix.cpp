#include "tests/support/program/mechanism_matrix.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/config.h"
#include "layers/attention/attention.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_config.h"
#include "tests/support/tiny_run.h"
#include "train/saved_model.h"

namespace longreach::test {
namespace {

using Words = std::vector<std::string>;
constexpr int64_t kSteps = 20, kSeqLen = 128;

// The licence, one document a paragraph: English as people write it, with many borders, and the same after
// every change of the project's pages.
void write_real_text(const TemporaryFolder& folder) {
  std::istringstream text(read_text(std::filesystem::path(LONGREACH_SOURCE_DIR) / "LICENSE"));
  std::string lines, paragraph;
  const auto flush = [&] {
    if (!paragraph.empty()) lines += nlohmann::json{{"text", paragraph}}.dump() + "\n";
    paragraph.clear();
  };
  for (std::string line; std::getline(text, line); paragraph += line.empty() ? "" : line + "\n")
    if (line.empty()) flush();
  flush();
  folder.write("text.jsonl", lines);
}

class Row {
 public:
  Row(const AttentionConfig& config, Mix mix)
      : kind_(kind_of(config)),
        limitations_(limitations_of(config)),
        packed_(!reason(Ability::packed_documents)) {
    write_real_text(folder_);
    AttentionEntry entry{.layers = mix == Mix::alone ? "all" : "0", .config = config};
    std::string toml = "[job]\ndump_folder = \"" + folder_.path("run") +
                       "\"\n[model]\nhidden_size = 64\nnum_hidden_layers = 2\nnum_attention_heads = 4\n"
                       "num_key_value_heads = 2\nmax_position_embeddings = 256\n[[model.attention]]\n" +
                       to_toml(fields_of(entry));
    if (mix == Mix::with_dense) toml += "[[model.attention]]\nkind = \"dense\"\nlayers = \"1\"\n";
    toml += "[data]\ntrain = [\"" + folder_.path("text.jsonl") +
            "\"]\ntokenizer = \"bytes\"\n[training]\nseq_len = 128\nbatch_size = 2\nsteps = 20\nthreads = 1\n"
            "[optimizer]\nlr = 1e-2\nweight_decay = 0.0\n[lr_scheduler]\nwarmup_steps = 2\ndecay_type = "
            "\"constant\"\n"
            "[checkpoint]\ninterval = 20\nkeep_latest_k = 0\n[sample]\ntokens = 0\n"
            "[metrics]\nplot = false\nenable_tensorboard = false\n";
    config_file_ = folder_.write("run.toml", toml);
  }

  void expect_everything() {
    if (reason(Ability::pretraining)) {
      expect_refused(Ability::pretraining, {});
      return;
    }
    if (!train("run", {})) return;
    saved_.emplace(load_saved_model(folder_.path("run")));
    expect_learnt();
    expect_resumed();
    expect_evaluated();
    expect_saved_and_loaded();
    if (reason(Ability::decoding))
      expect_generation_refused();
    else
      expect_generated();
    if (packed_)
      expect_packed_apart();
    else
      expect_refused(Ability::packed_documents, {"--training.varlen", "true"});
    expect_bfloat16();
    expect_recomputed();
    expect_shared();
  }

 private:
  const std::string* reason(Ability ability) const {
    for (const Limitation& limitation : limitations_)
      if (limitation.ability == ability) return &limitation.reason;
    return nullptr;
  }

  Words train_words(const std::string& run, const Words& overrides) const {
    Words words = {"train",           config_file_,        "--job.dump_folder",
                   folder_.path(run), "--training.varlen", packed_ ? "true" : "false"};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return words;
  }
  ProgramResult run_train(const std::string& run, const Words& overrides) const {
    return run_program(train_words(run, overrides));
  }
  bool train(const std::string& run, const Words& overrides) const {
    const ProgramResult result = run_train(run, overrides);
    EXPECT_EQ(result.code, 0) << run << ": " << result.err;
    return result.code == 0;
  }

  void expect_refused(Ability ability, const Words& overrides) const {
    const ProgramResult result = run_train("refused", overrides);
    expect_refusal(ability, result);
  }
  void expect_refusal(Ability ability, const ProgramResult& result) const {
    const std::string expected = text("`", kind_, "` ", inability(ability), ": ", *reason(ability));
    EXPECT_EQ(result.code, 2);
    EXPECT_NE(result.err.find(expected), std::string::npos) << result.err;
    std::cout << "skipped: " << expected << std::endl;
  }

  void expect_learnt() const {
    SCOPED_TRACE("train");
    const auto loss = losses(folder_.path("run"));
    ASSERT_EQ(loss.size(), static_cast<size_t>(kSteps));
    EXPECT_NEAR(loss.at(1), std::log(257.0), 0.5);
    EXPECT_LT(loss.at(kSteps), loss.at(1) - 1.0);
    const Transformer start(saved_->config.model, static_cast<uint64_t>(saved_->config.training.seed));
    const auto before = start.named_parameters();
    for (const auto& item : saved_->model->named_parameters())
      if (item.value().requires_grad()) {
        EXPECT_FALSE(item.value().equal(before[item.key()])) << item.key() << " has not moved";
      }
    expect_context_read();
  }

  // What comes before a token has a part in what follows it; without attention the two rows would be equal.
  void expect_context_read() const {
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = some_tokens(kSeqLen), other = tokens.clone();
    other.narrow(1, 0, kSeqLen - 1).add_(1);
    const auto last = [&](const at::Tensor& read) {
      return saved_->model->logits(read, whole_rows(1, kSeqLen))[0][kSeqLen - 1];
    };
    EXPECT_GT(relative_error(last(other), last(tokens)), 1e-5);
  }

  std::string step_file(const std::string& run, const char* name) const {
    return read_text(folder_.path(run + "/checkpoint/step-00000020/" + name));
  }

  void expect_resumed() const {
    SCOPED_TRACE("stop and resume");
    if (!train("stopped", {"--training.stop_at", "7"})) return;
    EXPECT_EQ(losses(folder_.path("stopped")).size(), 7u);
    if (!train("stopped", {})) return;
    EXPECT_EQ(losses(folder_.path("run")), losses(folder_.path("stopped")));
    for (const char* shard : {"model-00000.safetensors", "optimizer-00000.safetensors"})
      EXPECT_EQ(step_file("run", shard), step_file("stopped", shard)) << shard;
  }

  void expect_evaluated() const {
    SCOPED_TRACE("eval");
    const std::string file = folder_.path("eval.json");
    const ProgramResult result =
        run_program({"eval", folder_.path("run"), "--batch-size", "2", "--json", file});
    ASSERT_EQ(result.code, 0) << result.err;
    const double nll = nlohmann::json::parse(read_text(file))["nll"].get<double>();
    EXPECT_NEAR(nll, read_metrics(folder_.path("run")).back().at("valid_loss"), 1e-6);
  }

  void expect_saved_and_loaded() const {
    SCOPED_TRACE("native save and load");
    save_checkpoint(folder_.path("copy"), {.step = 1, .model = model_tensors(*saved_->model)});
    const auto read = open_latest(folder_.path("copy"), -1, [](const std::string& why) { FAIL() << why; });
    ASSERT_TRUE(read.has_value());
    Transformer other(saved_->config.model, 12345);
    load_model_tensors(other, read->model(), "copy");
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = some_tokens(kSeqLen);
    EXPECT_TRUE(other.logits(tokens, whole_rows(1, kSeqLen))
                    .equal(saved_->model->logits(tokens, whole_rows(1, kSeqLen))));
  }

  static at::Tensor some_tokens(int64_t count) {
    return at::arange(count, at::kLong).mul(7).remainder(90).add(32).unsqueeze(0);
  }

  Words generate_words() const {
    return {"generate",
            folder_.path("run"),
            "--prompt",
            "Attention over the tokens of a document, in blocks",
            "--max-new-tokens",
            "60",
            "--temperature",
            "0",
            "--ids"};
  }

  void expect_generation_refused() const { expect_refusal(Ability::decoding, run_program(generate_words())); }

  // Greedy text is what the parallel form would choose at every place, and the decode state gives its logits.
  void expect_generated() const {
    SCOPED_TRACE("generate");
    const Words words = generate_words();
    const ProgramResult result = run_program(words);
    ASSERT_EQ(result.code, 0) << result.err;
    std::vector<int64_t> ids;
    for (const data::Token token : saved_->tokenizer->encode(words[3])) ids.push_back(token);
    const auto prompt = static_cast<int64_t>(ids.size());
    std::istringstream printed(result.out);
    for (int64_t id; printed >> id;) ids.push_back(id);
    const auto length = static_cast<int64_t>(ids.size());
    ASSERT_GT(length, prompt);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = at::tensor(ids, at::kLong).unsqueeze(0);
    const at::Tensor parallel = saved_->model->logits(tokens, whole_rows(1, length))[0];
    for (int64_t i = prompt; i < length; ++i) {
      const at::Tensor row = parallel[i - 1];
      EXPECT_GE(row[ids[i]].item<double>(), row.max().item<double>() - 1e-4) << "token " << i;
    }
    ModelDecodeState state = saved_->model->start_decoding(1, length);
    std::vector<at::Tensor> steps;
    for (int64_t i = 0; i < length; ++i)
      steps.push_back(saved_->model->decode(tokens.narrow(1, i, 1), state));
    EXPECT_LE(relative_error(at::cat(steps), parallel), 1e-5);
  }

  void expect_packed_apart() const {
    SCOPED_TRACE("packed documents");
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> tokens, positions, alone;
    std::vector<int32_t> bounds{0};
    for (const int64_t length : {37, 1, 90, 64}) {
      tokens.push_back(some_tokens(length + 3).narrow(1, 3, length));
      positions.push_back(at::arange(length, at::kLong));
      alone.push_back(saved_->model->logits(tokens.back(), whole_rows(1, length)));
      bounds.push_back(bounds.back() + static_cast<int32_t>(length));
    }
    const Batch batch{.positions = at::cat(positions).unsqueeze(0),
                      .cu_seqlens = at::tensor(bounds, at::kInt)};
    EXPECT_LE(relative_error(saved_->model->logits(at::cat(tokens, 1), batch), at::cat(alone, 1)), 1e-5);
  }

  void expect_bfloat16() const {
    SCOPED_TRACE("bfloat16, plain rows");
    const Words overrides = {"--training.mixed_precision_param", "bfloat16", "--training.varlen", "false"};
    if (reason(Ability::bfloat16)) return expect_refused(Ability::bfloat16, overrides);
    if (!train("bfloat16", overrides)) return;
    const auto loss = losses(folder_.path("bfloat16"));
    ASSERT_EQ(loss.size(), static_cast<size_t>(kSteps));
    EXPECT_LT(loss.at(kSteps), loss.at(1) - 1.0);
  }

  void expect_recomputed() const {
    SCOPED_TRACE("activation checkpointing");
    const Words overrides = {"--activation_checkpoint.mode", "full", "--training.stop_at", "3"};
    if (reason(Ability::activation_checkpoint))
      return expect_refused(Ability::activation_checkpoint, overrides);
    if (!train("recomputed", overrides)) return;
    const auto whole = losses(folder_.path("run")), recomputed = losses(folder_.path("recomputed"));
    ASSERT_EQ(recomputed.size(), 3u);
    for (const auto& [step, loss] : recomputed) EXPECT_EQ(loss, whole.at(step)) << "step " << step;
  }

  // Two ranks that share every row, its tokens or the heads, train what one does: packed documents,
  // recomputed where that can be, and bfloat16.
  void expect_shared() const {
    SCOPED_TRACE("context parallelism");
    if (reason(Ability::context_parallel))
      return expect_refused(Ability::context_parallel, {"--parallel.context_parallel_degree", "2"});
    expect_shared_losses("float32", {}, {"fetch", "heads"}, 1e-5, 1e-5);
    if (!reason(Ability::bfloat16))
      expect_shared_losses("bfloat16",
                           {"--training.mixed_precision_param", "bfloat16", "--training.varlen", "false"},
                           {"auto"}, 1e-4, 2e-3);
  }

  // Losses within `first` at step 1 and `last` at the last. At the rate at which the other runs learn, twenty
  // steps make 1e-2 of the last bit of a bfloat16 number.
  void expect_shared_losses(const std::string& name, Words overrides, const Words& methods, double first,
                            double last) const {
    SCOPED_TRACE(name);
    overrides.insert(overrides.end(), {"--optimizer.lr", "1e-3"});
    if (!train("one_" + name, overrides)) return;
    const auto one = losses(folder_.path("one_" + name));
    overrides.insert(overrides.end(), {"--parallel.context_parallel_degree", "2"});
    if (!reason(Ability::activation_checkpoint))
      overrides.insert(overrides.end(), {"--activation_checkpoint.mode", "full"});
    for (const std::string& method : methods) {
      SCOPED_TRACE(method);
      const std::string run = "two_" + name + "_" + method;
      Words words = {"launch", "--nproc", "2"};
      const Words shared = train_words(run, overrides);
      words.insert(words.end(), shared.begin(), shared.end());
      words.insert(words.end(), {"--parallel.context_parallel_method", method});
      const ProgramResult result = run_program(words);
      ASSERT_EQ(result.code, 0) << result.err;
      const auto two = losses(folder_.path(run));
      ASSERT_EQ(two.size(), one.size());
      EXPECT_NEAR(two.at(1), one.at(1), first);
      EXPECT_NEAR(two.at(kSteps), one.at(kSteps), last);
    }
  }

  const TemporaryFolder folder_;
  std::string kind_;
  std::vector<Limitation> limitations_;
  bool packed_;
  std::string config_file_;
  std::optional<SavedModel> saved_;
};

}  // namespace

void expect_row_of_matrix(const AttentionConfig& config, Mix mix) {
  Row(small_config(config), mix).expect_everything();
}

}  // namespace longreach::test
