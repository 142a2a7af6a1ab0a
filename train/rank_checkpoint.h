// What a rank of a run has to do with its checkpoints: what it reads of them and what it writes.
#pragma once
#include <string>

#include "checkpoints/checkpoint.h"
#include "distributed/data_parallel.h"
#include "models/transformer.h"
#include "train/optimizer.h"
#include "train/shared_save.h"

namespace longreach {

// All ranks, as those that open a checkpoint together.
CheckpointPeers peers_of(const Group& world);

// Of the model: at stage 3 of `parallel` its shares and, whole, what is no parameter; else all of it, whole.
RankRuns model_runs(const Transformer& model, const DataParallel& parallel);

// Fills both with what this rank keeps of them, and reads nothing else. Throws CheckpointError when the
// checkpoint is of another model or holds a number that is not finite.
void read_checkpoint(const CheckpointReader& checkpoint, Transformer& model, const DataParallel& parallel,
                     AdamW& optimizer);

// What this rank writes, so that together ranks write every element once: one rank all of it where every rank
// has all (format version 1), else each its share.
SavedPart saved_part(const Transformer& model, const DataParallel& parallel, const AdamW& optimizer,
                     const Mesh& mesh);

}  // namespace longreach
