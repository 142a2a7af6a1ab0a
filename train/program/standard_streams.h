// Standard input, output and error as a program may find them: closed, full, or with nobody at the other end.
#pragma once

namespace longreach {

// A descriptor 0, 1 or 2 that is closed leads to /dev/null from now on. Otherwise the next file opened would
// get its number, and with it what is printed.
void open_standard_streams();

// A write that nobody reads fails, as on a full disk, and does not end the process.
void outlive_readers();

// Whether all that was printed has left.
bool standard_output_written();

}  // namespace longreach
