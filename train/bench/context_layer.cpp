#include "train/bench/context_layer.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <numeric>

#include "core/error.h"
#include "core/exec_words.h"
#include "distributed/agreement.h"
#include "distributed/gloo.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/matmul/matmul.h"
#include "train/bench/bench_case.h"
#include "train/bench/child_process.h"
#include "train/bench/clock.h"
#include "train/bench/layer.h"
#include "train/bench/memory.h"
#include "train/bench/statistics.h"
#include "train/model_input.h"

namespace longreach::bench {
namespace {

using nlohmann::json;

// A rank waits for another that has the whole row.
constexpr std::chrono::seconds kPatience{3600};
constexpr int64_t kWarmTokens = 256;

data::TokenBatch one_document(int64_t tokens) {
  data::TokenBatch row{.rows = 1, .seq_len = tokens};
  row.tokens.resize(static_cast<size_t>(tokens));
  row.labels = row.positions = row.tokens;
  std::iota(row.positions.begin(), row.positions.end(), int64_t{0});
  row.cu_seqlens = {0, static_cast<int32_t>(tokens)};
  return row;
}

// The layer, and what a rank has of a row that is one document.
class RankLayer {
 public:
  // ranks: null: all of it.
  RankLayer(const Setting& setting, const Group& ranks, const std::string& balance)
      : layer_(layer_of(setting)) {
    const Cost cost = [this](int64_t tokens) {
      return tokens == 0 ? 0.0 : static_cast<double>(tokens) * layer_->flops_per_token(tokens);
    };
    const ModelInput input = to_model_input(one_document(setting.tokens),
                                            {.ranks = ranks,
                                             .grain = context_grain({{.config = layer_config(setting)}}),
                                             .balance = balance_of(balance),
                                             .cost = cost});
    batch_ = input.batch;
    imbalance_ = input.imbalance;
    const at::Tensor own = batch_.positions[0];
    const Problem problem = make_problem(setting);
    x_ = problem.q.flatten(2).index_select(1, own).requires_grad_();
    dy_ = problem.grad_o.flatten(2).index_select(1, own);
  }

  Passes once() {
    return layer_passes([this](const at::Tensor& x) { return layer_->forward(x, batch_); }, x_, dy_);
  }

  double imbalance() const { return imbalance_; }

 private:
  std::shared_ptr<Attention> layer_;
  at::Tensor x_, dy_;
  Batch batch_;
  double imbalance_ = 1;
};

double seconds_of_pass(RankLayer& layer) {
  const Timing start = now();
  layer.once();
  return since(start).wall;
}

// Of one pass, over ranks.
struct SharedPass {
  double seconds = 0, waited = 0, bytes = 0;
};

SharedPass shared_pass(const Group& ranks, RankLayer& layer) {
  ranks->barrier("bench");
  ranks->forget_traffic();
  const double own = seconds_of_pass(layer);
  LabelTraffic moved;
  for (const auto& [label, of_label] : ranks->traffic()) {
    moved.bytes += of_label.bytes;
    moved.seconds += of_label.seconds;
  }
  SharedPass pass;
  for (const auto& numbers :
       gather(ranks, std::vector<double>{own, moved.seconds, static_cast<double>(moved.bytes)}, "bench")) {
    pass.seconds = std::max(pass.seconds, numbers[0]);
    pass.waited += numbers[1] / numbers[0] / ranks->size();
    pass.bytes = std::max(pass.bytes, numbers[2]);
  }
  return pass;
}

// Seconds of the first rank alone; 0 on the others.
double pass_of_first(const Group& ranks, RankLayer* whole) {
  ranks->barrier("bench");
  const double seconds = whole ? seconds_of_pass(*whole) : 0;
  ranks->barrier("bench");
  return seconds;
}

void time_layer(const ContextSetting& setting, const Group& ranks, ContextRow& row) {
  std::unique_ptr<RankLayer> whole;
  if (ranks->rank() == 0) whole = std::make_unique<RankLayer>(setting.layer, nullptr, setting.balance);
  RankLayer part(setting.layer, ranks, setting.balance);
  std::vector<double> one, all, waited, ratios;
  for (int round = -1; round < setting.layer.rounds; ++round) {
    double alone = round % 2 == 0 ? pass_of_first(ranks, whole.get()) : 0;
    const SharedPass pass = shared_pass(ranks, part);
    if (round % 2 != 0) alone = pass_of_first(ranks, whole.get());
    if (round < 0) continue;  // warm
    one.push_back(alone);
    all.push_back(pass.seconds);
    waited.push_back(pass.waited);
    ratios.push_back(alone / pass.seconds);
    row.bytes = static_cast<int64_t>(pass.bytes);
  }
  row.one_seconds = median(one);
  row.seconds = median(all);
  row.waited = median(waited);
  row.ratio = median(ratios);
  row.imbalance = part.imbalance();
}

void measure_memory(const ContextSetting& setting, const Group& ranks, ContextRow& row) {
  Setting small = setting.layer;
  small.tokens = std::min(small.tokens, kWarmTokens * ranks->size());
  RankLayer(small, ranks, setting.balance).once();
  RankLayer part(setting.layer, ranks, setting.balance);
  ranks->barrier("bench");
  Passes kept;
  const int64_t extra = extra_memory_of([&] { kept = part.once(); });
  row.extra_bytes = largest_over(ranks, extra, "bench");
  row.imbalance = part.imbalance();
}

}  // namespace

ContextRow measure_in_ranks(const ContextSetting& setting) {
  ChildProcess child({this_program(), "launch", "--nproc", text(setting.ranks), "bench", "--context-worker",
                      json(setting).dump()});
  std::string last;
  json row;
  for (std::string line; child.read_line(line); last = line)
    if (const json read = json::parse(line, nullptr, false); read.is_object()) row = read;
  const int code = child.wait();
  check<UserError>(code == 0 && row.is_object() && !row.contains("error"), "bench: ", setting.ranks,
                   " ranks of ", setting.layer.name, " ended with code ", code, ": ",
                   row.is_object() ? row.value("error", one_line(last)) : one_line(last));
  return row.get<ContextRow>();
}

int context_worker_main(const std::string& written) {
  const auto setting = json::parse(written).get<ContextSetting>();
  const Environment environment = read_environment();
  check<UserError>(environment.world == setting.ranks, "bench: ", environment.world, " ranks, expected ",
                   setting.ranks);
  set_num_threads(setting.layer.threads);  // before any parallel work
  set_matmul_library(fastest_matmul_library());
  const Group ranks = gloo_communicator(std::make_shared<Rendezvous>(environment, std::chrono::seconds(60)),
                                        {.timeout = kPatience});
  ContextRow row{.setting = setting};
  if (setting.memory)
    measure_memory(setting, ranks, row);
  else
    time_layer(setting, ranks, row);
  if (environment.rank == 0) std::cout << json(row).dump() << std::endl;
  ranks->barrier("bench");  // nobody leaves while another needs it
  return 0;
}

}  // namespace longreach::bench
