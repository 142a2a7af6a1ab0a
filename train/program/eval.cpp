// `longreach eval CHECKPOINT`: likelihood of held-out text by position in the document, under gates, or with
// layers converted; facts
// found in long texts.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "layers/ops/cpu/parallel.h"
#include "train/evaluate.h"
#include "train/evaluate_gates.h"
#include "train/held_out.h"
#include "train/program/command_line.h"
#include "train/program/eval_layers.h"
#include "train/program/eval_long_context.h"
#include "train/program/long_context_report.h"
#include "train/progress.h"
#include "train/ranks.h"

namespace longreach {
namespace {

nlohmann::ordered_json to_json(const SavedModel& saved, const Evaluation& evaluation) {
  nlohmann::ordered_json json;
  json["checkpoint"] = saved.path;
  json["step"] = saved.step;
  json["tokens"] = evaluation.tokens;
  json["nll"] = evaluation.nll;
  json["perplexity"] = evaluation.perplexity;
  json["bits_per_byte"] = evaluation.bits_per_byte;
  for (const PositionBucket& bucket : evaluation.buckets)
    json["positions"].push_back(
        {{"first", bucket.first}, {"last", bucket.last}, {"tokens", bucket.tokens}, {"nll", bucket.nll}});
  return json;
}

void print_table(const Evaluation& evaluation) {
  std::cout << "  position            tokens        nll  perplexity\n" << std::fixed;
  for (const PositionBucket& bucket : evaluation.buckets)
    std::cout << std::setw(8) << bucket.first << " - " << std::left << std::setw(8) << bucket.last
              << std::right << std::setw(9) << bucket.tokens << std::setw(11) << std::setprecision(4)
              << bucket.nll << std::setw(12) << std::exp(bucket.nll) << "\n";
  std::cout << "all " << evaluation.tokens << " tokens: nll " << std::setprecision(6) << evaluation.nll
            << ", perplexity " << evaluation.perplexity << ", " << evaluation.bits_per_byte
            << " bits per byte\n";
}

// "10,20,30,50" per cent.
std::vector<double> parse_densities(const std::vector<int64_t>& percents) {
  std::vector<double> densities;
  for (const int64_t percent : percents) densities.push_back(static_cast<double>(percent) / 100.0);
  return densities;
}

nlohmann::ordered_json to_json(const SavedModel& saved, const std::vector<GateResult>& trials) {
  nlohmann::ordered_json json;
  json["checkpoint"] = saved.path;
  json["step"] = saved.step;
  for (const GateResult& trial : trials)
    json["trials"].push_back({{"policy", trial.policy},
                              {"density", trial.asked},
                              {"measured_density", trial.measured},
                              {"nll", trial.nll},
                              {"perplexity", trial.perplexity}});
  return json;
}

// One line a density, one column a choice of blocks; behind it, relative to dense attention.
void print_table(const std::vector<GateResult>& trials) {
  const double dense = trials.front().perplexity;
  std::cout << std::fixed << "perplexity, and above dense attention (" << std::setprecision(4) << dense
            << ")\n"
            << "density   read          oracle            gate          window          random";
  for (size_t i = 1; i < trials.size(); ++i) {
    const GateResult& trial = trials[i];
    if (i == 1 || trial.asked != trials[i - 1].asked)
      std::cout << "\n"
                << std::setw(6) << std::setprecision(0) << 100 * trial.asked << "%" << std::setw(6)
                << std::setprecision(1) << 100 * trial.measured << "%";
    std::cout << std::setw(9) << std::setprecision(4) << trial.perplexity << std::showpos << std::setw(6)
              << std::setprecision(1) << 100 * (trial.perplexity / dense - 1) << "%" << std::noshowpos;
  }
  std::cout << "\n";
}

// Ranks of one machine share its cores. context: how many share a row.
Ranks meet(int64_t context) {
  Ranks ranks{.environment = read_environment()};
  const int world = ranks.environment.world;
  check(world % context == 0, "--context-parallel-degree ", context, ": ", world,
        " ranks cannot be dealt out in groups of so many");
  const Group all = join_world(ranks.environment, {}, std::chrono::seconds(300));
  ranks.mesh = make_mesh(all, {.shard = world / context, .context = context});
  if (ranks.world()) set_num_threads(threads_of_rank(ranks.environment, 0));
  return ranks;
}

struct EvalRequest {
  std::string checkpoint, json_file, dtype = "float32";
  std::vector<std::string> files, tasks{"ppl"};
  std::vector<int64_t> percents{10, 20, 30, 50};
  int64_t seq_len = 0, rows = 0, batch_size = 1, context = 1;
  LongContextRequest long_context;

  std::string teacher;  // of the task layers

  bool is_long_context() const { return !measured_alone(tasks[0]); }
  static bool measured_alone(const std::string& task) {
    return task == "ppl" || task == "gates" || task == "layers";
  }
};

void add_held_out_options(CLI::App& app, EvalRequest& request) {
  app.add_option("--density", request.percents, "gates: per cent of the causal map, such as 10,20,30,50")
      ->delimiter(',')
      ->check(CLI::Range(1, 100));
  app.add_option("--teacher", request.teacher,
                 "layers: the model that the checkpoint's layers were converted from");
  app.add_option("--data", request.files,
                 "held-out text or token stores; default: the run's own held-out split");
  app.add_option("--seq-len", request.seq_len, "tokens a row; default: the run's")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--rows", request.rows, "rows to read, spread evenly; 0: all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--batch-size", request.batch_size, "rows a forward pass")->check(CLI::PositiveNumber);
  app.add_option("--dtype", request.dtype, "dtype of matmuls and attention")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--context-parallel-degree", request.context,
                 "ranks that share a row, under `launch` and its like; the others have rows of their own")
      ->check(CLI::PositiveNumber);
}

// That tasks go together, and that no option was given which they do not look at.
void expect_tasks(const CLI::App& app, const EvalRequest& request) {
  for (const std::string& task : request.tasks)
    check(request.tasks.size() == 1 || !EvalRequest::measured_alone(task), "--tasks ",
          join(request.tasks, ","), ": ", task, " is measured alone; passkey and niah go together");
  const bool layers = request.tasks[0] == "layers";
  check(layers == !request.teacher.empty(), "--teacher: ",
        layers ? "is missing; --tasks layers compares with the model that layers were converted from"
               : "is for --tasks layers, not for " + join(request.tasks, ","));
  const std::vector<std::string> held_out{
      "--density", "--teacher",    "--data",  "--seq-len",
      "--rows",    "--batch-size", "--dtype", "--context-parallel-degree"};
  for (const std::string& name : request.is_long_context() ? held_out : long_context_options())
    check(app.get_option(name)->count() == 0, name, ": is not for --tasks ", join(request.tasks, ","));
}

void eval_held_out(SavedModel& saved, const EvalRequest& request, Ranks& ranks) {
  const int64_t context = request.context;
  const bool bf16 = request.dtype == "bfloat16";
  if (bf16) expect_ability(saved.config.model.attention, Ability::bfloat16, "--dtype bfloat16");
  if (context > 1) {
    expect_ability(saved.config.model.attention, Ability::context_parallel, "--context-parallel-degree");
    expect_heads_for_all(saved.config, context);
    ranks.mesh.heads = head_groups(ranks.mesh.context, context_method(saved.config));
  }
  const data::Corpus corpus = first_rank_first(
      ranks.world(), [&] { return held_out_corpus(saved, request.files); });  // it may tokenize
  const data::ValidLoader loader(
      corpus, {.seq_len = request.seq_len ? request.seq_len : saved.config.training.seq_len,
               .seed = static_cast<uint64_t>(saved.config.training.seed),
               .varlen = saved.config.training.varlen});
  expect_same_on_all(
      ranks,
      text("step ", saved.step, "\nrows ", loader.num_rows(), "\ntext of bytes ", loader.num_bytes(),
           "\n--rows ", request.rows, "\n--batch-size ", request.batch_size, "\n--context-parallel-degree ",
           context, "\n--dtype ", request.dtype),
      "what they evaluate");
  const LossOptions options{.autocast_bf16 = bf16};
  EvaluationClock clock;
  ProgressLine line(stderr);
  const EvaluationProgress progress = [&](int64_t done, int64_t all) {
    if (ranks.first()) line.activity(clock.at(done, all));
    return true;
  };
  const auto report = [&](const auto& measured) {
    line.finish();
    if (!ranks.first()) return;
    print_table(measured);
    if (!request.json_file.empty()) write_json(request.json_file, to_json(saved, measured));
  };
  if (request.tasks[0] == "gates") {
    report(evaluate_gates(*saved.model, loader, parse_densities(request.percents), request.rows,
                          request.batch_size, options, progress));
    return;
  }
  if (request.tasks[0] == "layers") {
    const SavedModel teacher = load_saved_model(request.teacher);
    report(evaluate_layers(*saved.model, *teacher.model, loader, request.rows, request.batch_size, options,
                           progress));
    return;
  }
  const Evaluation evaluation =
      evaluate(*saved.model, loader, request.rows, request.batch_size, options, progress, ranks.mesh,
               context_plan(saved.config, saved.model, ranks.mesh));
  expect_tokens(evaluation);
  report(evaluation);
}

}  // namespace

int eval_verb(const Arguments& arguments) {
  EvalRequest request;
  CLI::App app(
      "perplexity of held-out text, by position in the document or under gates; facts found in long texts",
      "eval");
  app.add_option("CHECKPOINT", request.checkpoint, "run, checkpoint folder or step folder")->required();
  app.add_option("--tasks", request.tasks,
                 "what to measure: ppl, by position; gates: perplexity under taught gates beside other "
                 "choices of as many blocks; layers: what each layer that was converted from --teacher adds; "
                 "passkey, niah: a fact asked for behind a long text")
      ->delimiter(',')
      ->check(CLI::IsMember({"ppl", "gates", "layers", "passkey", "niah"}));
  add_held_out_options(app, request);
  add_options(app, request.long_context);
  app.add_option("--json", request.json_file, "write the figures here too");
  if (!parse_arguments(app, arguments)) return 0;
  expect_tasks(app, request);

  Ranks ranks = meet(request.context);
  check(request.tasks[0] == "ppl" || !ranks.world(), "--tasks ", join(request.tasks, ","),
        " runs on one rank, not on ", ranks.environment.world);
  SavedModel saved = load_saved_model(request.checkpoint);
  if (request.is_long_context()) {
    request.long_context.options.tasks = request.tasks;
    eval_long_context(saved, request.long_context, request.json_file);
  } else {
    eval_held_out(saved, request, ranks);
  }
  return 0;
}

}  // namespace longreach
