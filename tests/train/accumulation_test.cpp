// However the rows of a step are cut into micro-batches, its losses and its gradients are the same: every
// mechanism, documents of unlike lengths, labels that are missing.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/loader.h"
#include "models/transformer.h"
#include "tests/support/program.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_config.h"
#include "tests/support/small_model.h"
#include "tests/support/tiny_run.h"
#include "train/model_input.h"

namespace longreach::test {
namespace {

constexpr int64_t kRows = 8, kTokens = 64, kVocab = 50;

// Row r holds documents of its own lengths; rows 2 and 5 are one document each, row 6 has a single label.
std::vector<data::TokenBatch> rows_of_a_step() {
  const std::vector<std::vector<int32_t>> cuts{{20, 45},     {3, 35, 50}, {},   {63},
                                               {10, 11, 30}, {},          {32}, {48, 56}};
  std::mt19937_64 random(3);
  std::vector<data::TokenBatch> rows;
  for (int64_t r = 0; r < kRows; ++r) {
    data::TokenBatch row{.rows = 1, .seq_len = kTokens, .cu_seqlens = {0}};
    for (const int32_t cut : cuts[r]) row.cu_seqlens.push_back(cut);
    row.cu_seqlens.push_back(kTokens);
    for (size_t d = 0; d + 1 < row.cu_seqlens.size(); ++d)
      for (int64_t t = 0; t < row.cu_seqlens[d + 1] - row.cu_seqlens[d]; ++t) {
        row.tokens.push_back(static_cast<int64_t>(random() % kVocab));
        const bool labelled = r == 6 ? d == 1 && t == 15 : random() % 4 != 0;
        row.labels.push_back(labelled ? static_cast<int64_t>(random() % kVocab) : data::kIgnoreLabel);
        row.positions.push_back(t);
      }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<ModelInput> step_in(int64_t rows_each, bool whole_rows) {
  std::vector<ModelInput> step;
  const auto rows = rows_of_a_step();
  for (int64_t r = 0; r < kRows; r += rows_each) {
    data::TokenBatch micro{.rows = rows_each, .seq_len = kTokens, .cu_seqlens = {0}};
    for (int64_t i = 0; i < rows_each; ++i) {
      const data::TokenBatch& row = rows[r + i];
      micro.tokens.insert(micro.tokens.end(), row.tokens.begin(), row.tokens.end());
      micro.labels.insert(micro.labels.end(), row.labels.begin(), row.labels.end());
      for (int64_t t = 0; t < kTokens; ++t) micro.positions.push_back(whole_rows ? t : row.positions[t]);
      for (size_t d = whole_rows ? row.cu_seqlens.size() - 1 : 1; d < row.cu_seqlens.size(); ++d)
        micro.cu_seqlens.push_back(static_cast<int32_t>(i * kTokens) + row.cu_seqlens[d]);
    }
    step.push_back(to_model_input(micro));
  }
  return step;
}

struct Result {
  double loss = 0, auxiliary = 0;
  std::map<std::string, at::Tensor> gradients;
};

Result run_step(Transformer& model, const std::vector<ModelInput>& step) {
  std::vector<Batch> batches;
  int64_t labelled = 0;
  for (const ModelInput& micro : step) {
    batches.push_back(micro.batch);
    labelled += micro.labelled;
  }
  const LossCounts counts = model.loss_counts(batches);
  model.zero_grad();
  Result result;
  for (const ModelInput& micro : step) {
    const LossOutput out = model.loss(micro.tokens, micro.labels, micro.batch, {.z_loss = 1e-2}, counts);
    at::Tensor total = out.loss_sum / static_cast<double>(labelled);
    result.loss += total.item<double>();
    for (const auto& [name, value] : out.auxiliary) {
      result.auxiliary += value.item<double>();
      total = total + value;
    }
    total.backward();
  }
  for (const auto& item : model.named_parameters())
    if (item.value().grad().defined()) result.gradients[item.key()] = item.value().grad().clone();
  return result;
}

std::vector<AttentionConfig> kinds() {
  std::vector<AttentionConfig> configs;
  for (const AttentionConfig& config : all_attention_configs()) configs.push_back(small_config(config));
  for (const char* form : {"decode", "prefill"}) {
    SeerConfig seer{.mode = "distill", .form = form, .block_size = 16, .gate_hidden = 16, .token_budget = 32};
    configs.emplace_back(seer);
    seer.mode = "sparse";
    configs.emplace_back(seer);
  }
  return configs;
}

bool packs(const AttentionConfig& config) {
  for (const Limitation& limitation : limitations_of(config))
    if (limitation.ability == Ability::packed_documents) return false;
  return true;
}

// In float64, where sums in another order differ in the last digits alone and no choice of blocks hangs on
// them.
TEST(Accumulation, CutsOfAStepGiveOneLossAndOneGradient) {
  for (const AttentionConfig& attention : kinds()) {
    ModelConfig config = small_model();
    config.num_hidden_layers = 1;
    config.head_dim = 16;
    config.max_position_embeddings = kTokens;
    config.attention = {{.layers = "all", .config = attention}};
    config.implementation = Implementation::reference;
    config.resolve(kVocab);
    Transformer model(config, 1);
    model.to(at::kDouble);
    for (const bool whole_rows : {true, false}) {
      if (!whole_rows && !packs(attention)) continue;
      const Result once = run_step(model, step_in(8, whole_rows));
      for (const int64_t rows_each : {2, 1}) {
        const std::string what =
            text(kind_of(attention), whole_rows ? ", " : ", packed, ", rows_each, " rows each: ");
        const Result cut = run_step(model, step_in(rows_each, whole_rows));
        EXPECT_NEAR(cut.loss, once.loss, 1e-9) << what;
        EXPECT_NEAR(cut.auxiliary, once.auxiliary, 1e-12) << what;
        ASSERT_EQ(cut.gradients.size(), once.gradients.size());
        for (const auto& [name, gradient] : once.gradients)
          EXPECT_LE(relative_error(cut.gradients.at(name), gradient), 1e-9) << what << name;
      }
    }
  }
}

// Through the program: what it prints of the first step, distilling and fine-tuning with the gate's loss.
TEST(Accumulation, TheProgramsFirstStepDoesNotDependOnTheCut) {
  const TemporaryFolder folder;
  std::mt19937_64 random(5);
  std::string documents;
  for (int i = 0; i < 200; ++i)
    documents += "{\"text\": \"" + std::string(10 + random() % 150, 'a' + i % 26) + "\"}\n";
  folder.write("corpus.jsonl", documents);
  const auto run = [&](const std::string& name, const std::string& mode,
                       const std::vector<std::string>& more) {
    const std::string config = folder.write(
        name + ".toml",
        text("[job]\ndump_folder = \"", folder.path(name),
             "\"\n[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 4\n"
             "num_key_value_heads = 2\nmax_position_embeddings = 256\n[[model.attention]]\nkind = "
             "\"seer\"\nmode = \"",
             mode, "\"\nblock_size = 16\ngate_hidden = 8\ntoken_budget = 32\n[data]\ntrain = [\"",
             folder.path("corpus.jsonl"),
             "\"]\nvalid_fraction = 0.0\n[training]\nseq_len = 128\nbatch_size = 8\nsteps = 1\nthreads = 1\n"
             "[validation]\nfinal = false\n[sample]\ntokens = 0\n[metrics]\nplot = false\n"));
    std::vector<std::string> words{"train", config};
    words.insert(words.end(), more.begin(), more.end());
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return read_metrics(folder.path(name)).at(0);
  };
  run("teacher", "dense", {});
  for (const auto& [task, mode] :
       {std::pair{"distill", "distill"}, {"finetune", "sparse"}, {"finetune", "distill"}}) {
    const auto first_step = [&](int64_t rows) {
      return run(text(task, "-", mode, "-", rows), mode,
                 {"--job.task", task, "--checkpoint.initial_load_path", folder.path("teacher"),
                  "--checkpoint.enable_checkpoint", "false", "--training.batch_size", std::to_string(rows),
                  "--training.gradient_accumulation_steps", std::to_string(8 / rows)});
    };
    const MetricsLine once = first_step(8);
    for (const int64_t rows : {2, 1}) {
      const MetricsLine cut = first_step(rows);
      for (const char* name : {"loss", "grad_norm", "gate"}) {
        if (once.count(name) == 0) continue;  // distilling, the gate's loss is the loss
        EXPECT_NEAR(cut.at(name), once.at(name), 2e-5 * once.at(name)) << task << " " << mode << " " << rows;
        EXPECT_GT(once.at(name), 0);
      }
    }
  }
}

}  // namespace
}  // namespace longreach::test
