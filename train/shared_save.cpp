#include "train/shared_save.h"

#include <sys/resource.h>
#include <unistd.h>

#include <sstream>

#include "checkpoints/folders.h"
#include "core/error.h"
#include "distributed/agreement.h"
#include "train/finite.h"

namespace longreach {
namespace {

// "NAME BYTES SUM", a file a line: names of shards have no spaces.
std::string lines_of(const std::vector<ManifestFile>& files) {
  std::string lines;
  for (const ManifestFile& file : files)
    lines += text(file.name, " ", file.sum.size, " ", file.sum.xxh3, "\n");
  return lines;
}

std::vector<ManifestFile> files_of(const std::vector<std::string>& lines_of_ranks) {
  std::vector<ManifestFile> files;
  for (const std::string& lines : lines_of_ranks) {
    std::istringstream in(lines);
    for (ManifestFile file; in >> file.name >> file.sum.size >> file.sum.xxh3;) files.push_back(file);
  }
  return files;
}

// The calling thread gets a thirtieth of a core that operators' threads want too: they share out work evenly,
// and all would wait for the one beside it. It is alone where training waits for it.
void yield_to_training() { ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 15); }

NamedTensors named(const std::vector<TensorRun>& runs) {
  NamedTensors tensors;
  for (const TensorRun& run : runs) tensors.emplace_back(run.name, run.values);
  return tensors;
}

}  // namespace

SharedSave::SharedSave(const Group& world, const std::string& root, int64_t step, SavedPart part,
                       std::map<std::string, std::string> texts, WritePoint point, Mode mode)
    : world_(world),
      step_(step),
      path_(step_folder(root, step)),
      part_(std::move(part)),
      texts_(std::move(texts)),
      point_(std::move(point)) {
  on_first_rank(world_, [&] { writer_ = std::make_unique<CheckpointWriter>(root, step_, point_); });
  if (mode == Mode::kWait) return;
  if (!part_.writes) part_ = {.version = part_.version, .writes = false};
  for (std::vector<TensorRun>* runs : {&part_.model, &part_.optimizer})
    for (TensorRun& run : *runs)
      run.values = run.values.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  beside_ = std::make_unique<Background>();
  beside_->submit([this] {
    yield_to_training();
    try {
      write();
    } catch (...) {
      written_ = true;
      throw;  // from publish()
    }
    written_ = true;
  });
}

SharedSave::~SharedSave() = default;

void SharedSave::write() {
  if (!part_.writes) return;
  const NamedTensors model = named(part_.model), optimizer = named(part_.optimizer);
  for (const NamedTensors* tensors : {&model, &optimizer})
    expect_finite<TrainingError>(*tensors, text("no checkpoint of step ", step_, " is written"));
  const std::string folder = path_ + ".tmp";
  files_ = part_.version == 1 ? write_whole(folder, model, optimizer, point_)
                              : write_shards(folder, part_.rank, part_.model, part_.optimizer, point_);
}

std::string SharedSave::publish() {
  on_every_rank(world_, [&] { beside_ ? beside_->wait() : write(); });
  const std::vector<std::string> of_ranks = gather(world_, lines_of(files_), "wait");
  on_first_rank(world_, [&] {
    writer_->add_files(part_.version, files_of(of_ranks));
    for (const auto& [name, value] : texts_) writer_->add_text(name, value);
    writer_->publish();
  });
  return path_;
}

}  // namespace longreach
