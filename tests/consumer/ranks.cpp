// A user's own module on several processes, which RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell apart:
// each trains rows of its own, first with the whole state on all of them, then with gradients and optimizer
// state shared out (ZeRO, stage 2). Exit code 0 when it learns, and both give the same bits.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <torch/nn/module.h>

#include <cstdio>

#include "distributed/data_parallel.h"
#include "distributed/gloo.h"

constexpr int64_t kWidth = 32, kRows = 64, kSteps = 200;

struct Layer : torch::nn::Module {
  Layer() { weight = register_parameter("weight", at::randn({kWidth, kWidth}) * 0.2); }
  at::Tensor weight;
};

struct Net : torch::nn::Module {
  Net() {
    for (const char* name : {"first", "second"})
      layers.push_back(register_module(name, std::make_shared<Layer>()));
    head = register_parameter("head", at::randn({1, kWidth}) * 0.2);
  }
  at::Tensor forward(at::Tensor x) {
    for (const auto& layer : layers) x = at::linear(x, layer->weight).tanh();
    return at::linear(x, head);
  }
  std::vector<std::shared_ptr<Layer>> layers;
  at::Tensor head;
};

// The parameters after gradient descent with momentum, and the first and the last loss of these rows.
std::vector<at::Tensor> train(const longreach::Mesh& mesh, int zero_stage, double& first, double& last) {
  at::manual_seed(1);  // the same module on all ranks
  Net net;
  at::manual_seed(10 + static_cast<uint64_t>(longreach::rank_in(mesh.world)));
  const at::Tensor x = at::randn({kRows, kWidth}), y = (x.select(1, 0) * x.select(1, 1)).tanh().unsqueeze(1);
  longreach::DataParallel parallel(net, {net.layers.begin(), net.layers.end()}, mesh, zero_stage);
  std::vector<at::Tensor> momenta;
  for (const longreach::Run& run : parallel.runs()) momenta.push_back(at::zeros_like(run.values));
  for (int64_t step = 0; step < kSteps; ++step) {
    parallel.begin_step();
    parallel.begin_micro_batch(true);
    const at::Tensor loss = (net.forward(x) - y).square().mean() / longreach::size_of(mesh.world);
    loss.backward();
    parallel.finish();
    for (size_t i = 0; i < momenta.size(); ++i) {
      momenta[i].mul_(0.9).add_(parallel.runs()[i].values.grad());
      parallel.runs()[i].values.sub_(momenta[i], 0.05);
    }
    parallel.publish();
    (step == 0 ? first : last) = loss.item<double>();
  }
  return net.parameters();
}

int main() {
  const longreach::Environment environment = longreach::read_environment();
  const auto store = std::make_shared<longreach::Rendezvous>(environment, std::chrono::seconds(60));
  const longreach::Group world = longreach::gloo_communicator(store, {});
  const longreach::Mesh mesh = longreach::make_mesh(world, {.shard = environment.world});
  double first = 0, last = 0;
  const auto whole = train(mesh, 0, first, last), shared = train(mesh, 2, first, last);
  bool same = true;
  for (size_t i = 0; i < whole.size(); ++i) same = same && whole[i].equal(shared[i]);
  std::fprintf(stderr, "rank %d of %d: loss %.4f -> %.4f, %s\n", environment.rank, environment.world, first,
               last, same ? "the same bits" : "other bits");
  return same && last < first / 2 ? 0 : 1;
}
