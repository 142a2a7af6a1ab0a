// Memory and threads that run out where nobody can catch: in the initialisers of libraries, in their threads,
// or in a library that waits for a thread which could not be started.
#pragma once

namespace longreach {

// An exception that nobody catches ends the program with one line and exit code 1, and so does, where `ulimit
// -v` is set, a library that writes to memory it was refused. May run before any initialiser.
void end_in_one_line();

// Throws Error unless so many threads can run at once, with some memory for their work: LibTorch does not
// look whether its own have started, and waits for them for ever.
void expect_threads(int count);

}  // namespace longreach
