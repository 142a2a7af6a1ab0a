// SIGTERM and SIGINT ask a run to write a checkpoint and leave; a second one ends the program at once.
#pragma once

namespace longreach {

void watch_stop_signals();
bool stop_requested();

}  // namespace longreach
