// The save of a checkpoint by all ranks: each writes its part, the first one the rest.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/checkpoint_writer.h"
#include "distributed/background.h"
#include "distributed/communicator.h"

namespace longreach {

// What a rank writes.
struct SavedPart {
  int64_t version = 1;  // of the format; 1: the tensors are whole, and one rank's
  int rank = 0;         // in the names of files
  bool writes = true;   // else other ranks have all of it
  std::vector<TensorRun> model, optimizer;
};

class SharedSave {
 public:
  enum class Mode { kWait, kBeside };

  // Of root/step-NNNNNNNN; texts: the first rank's count. kBeside: copies the tensors and writes them on a
  // thread beside, else publish() writes. Called by all ranks. Throws CheckpointError, like publish().
  SharedSave(const Group& world, const std::string& root, int64_t step, SavedPart part,
             std::map<std::string, std::string> texts, WritePoint point, Mode mode);
  ~SharedSave();  // when nothing writes any more; what is not published vanishes

  // Whether publish() finds this rank's part on the disk, or its failure.
  bool written() const { return written_; }
  // Waits until all parts are on the disk; then the checkpoint appears, atomically. Called by all ranks;
  // returns the path. What fails on one rank throws on all, and leaves everything else as it was:
  // CheckpointError on the rank that cannot write, TrainingError where a number is not finite, and errors
  // that quote them on the others.
  std::string publish();

  int64_t step() const { return step_; }
  // Has counted what has been written.
  const WritePoint& point() const { return point_; }

 private:
  void write();

  const Group world_;
  const int64_t step_;
  const std::string path_;
  SavedPart part_;
  const std::map<std::string, std::string> texts_;
  const WritePoint point_;
  std::unique_ptr<CheckpointWriter> writer_;  // the first rank's
  std::vector<ManifestFile> files_;           // written by this rank
  std::atomic<bool> written_ = false;
  std::unique_ptr<Background> beside_;  // last, so that it ends first
};

}  // namespace longreach
