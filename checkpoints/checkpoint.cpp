// Saving, loading and retention of native checkpoints.
#include "checkpoints/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "checkpoints/checkpoint_writer.h"
#include "checkpoints/folders.h"
#include "core/error.h"

namespace longreach {
namespace {

NamedTensors whole_tensors(const ShardedTensors& shards) {
  NamedTensors tensors;
  for (const std::string& name : shards.names()) tensors.emplace_back(name, shards.tensor(name));
  return tensors;
}

CheckpointContents contents_of(const CheckpointReader& reader) {
  return {.step = reader.step(),
          .path = reader.path(),
          .model = whole_tensors(reader.model()),
          .optimizer = whole_tensors(reader.optimizer()),
          .texts = reader.texts()};
}

// "" or the message of a CheckpointError.
std::string message_of(const std::function<void()>& work) {
  try {
    work();
    return "";
  } catch (const CheckpointError& error) {
    return error.what();
  }
}

// Each message once; "" when there is none.
std::string joined(const std::vector<std::string>& messages) {
  std::vector<std::string> different;
  for (const std::string& message : messages)
    if (!message.empty() && std::find(different.begin(), different.end(), message) == different.end())
      different.push_back(message);
  return join(different, "; ");
}

// The steps that the first rank sees, the latest first.
std::vector<int64_t> steps_below(const std::string& root, int64_t at_most, const CheckpointPeers& peers) {
  const auto listed = peers.each([&] {
    std::string steps;
    if (peers.rank > 0) return steps;
    restore_replaced(root);
    for (const auto& [step, folder] : list_checkpoints(root)) steps += text(step, " ");
    return steps;
  });
  std::vector<int64_t> steps;
  std::istringstream in(listed[0]);
  for (int64_t step = 0; in >> step;)
    if (step <= at_most) steps.insert(steps.begin(), step);
  return steps;
}

// Throws the same CheckpointError on all ranks.
CheckpointReader open_together(const std::string& folder, bool with_optimizer, const CheckpointPeers& peers) {
  std::optional<CheckpointReader> reader;
  const auto verify = [&] { verify_checkpoint(folder, with_optimizer, peers.rank, peers.ranks); };
  for (const std::function<void()>& work : {std::function<void()>(verify), std::function<void()>([&] {
                                              reader.emplace(folder, with_optimizer);
                                            })}) {
    const std::string error = joined(peers.each([&] { return message_of(work); }));
    check<CheckpointError>(error.empty(), error);
  }
  return std::move(*reader);
}

CheckpointReader open_step(const std::string& root, int64_t step, bool with_optimizer,
                           const CheckpointPeers& peers) {
  std::vector<std::string> there;
  for (const int64_t have : steps_below(root, std::numeric_limits<int64_t>::max(), peers)) {
    if (have == step) return open_together(step_folder(root, step), with_optimizer, peers);
    there.insert(there.begin(), std::to_string(have));
  }
  throw CheckpointError(one_line(
      text(root, ": has no checkpoint of step ", step, "; there: ", there.empty() ? "none" : join(there))));
}

}  // namespace

std::string save_checkpoint(const std::string& root, const CheckpointContents& contents,
                            const WritePoint& point) {
  CheckpointWriter writer(root, contents.step, point);
  writer.add_files(1, write_whole(writer.folder(), contents.model, contents.optimizer, point));
  for (const auto& [name, value] : contents.texts) writer.add_text(name, value);
  return writer.publish();
}

CheckpointContents load_checkpoint(const std::string& folder, bool with_optimizer) {
  return contents_of(open_together(folder, with_optimizer, {}));
}

std::optional<CheckpointReader> open_latest(const std::string& root, int64_t step,
                                            void (*warn)(const std::string&), int64_t at_most,
                                            bool with_optimizer, const CheckpointPeers& peers) {
  if (step >= 0) return open_step(root, step, with_optimizer, peers);
  const std::vector<int64_t> steps = steps_below(root, at_most, peers);
  if (steps.empty()) return std::nullopt;
  std::string last;
  for (auto at = steps.begin(); at != steps.end(); ++at) {
    try {
      return open_together(step_folder(root, *at), with_optimizer, peers);
    } catch (const CheckpointError& error) {
      last = error.what();
      if (peers.rank > 0) continue;
      const std::string rest = std::next(at) == steps.end()
                                   ? "no older one is left"
                                   : "using the one before: " + step_folder(root, *std::next(at));
      const std::string message =
          one_line(text("checkpoint of step ", *at, " cannot be used (", last, "); ", rest));
      warn ? warn(message) : static_cast<void>(std::fprintf(stderr, "%s\n", message.c_str()));
    }
  }
  throw CheckpointError(
      one_line(text(root, ": none of its ", steps.size(), " checkpoints can be used; the oldest: ", last)));
}

std::optional<CheckpointContents> load_latest(const std::string& root, int64_t step,
                                              void (*warn)(const std::string&), int64_t at_most,
                                              bool with_optimizer) {
  const auto reader = open_latest(root, step, warn, at_most, with_optimizer);
  if (!reader) return std::nullopt;
  return contents_of(*reader);
}

}  // namespace longreach
