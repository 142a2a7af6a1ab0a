// The verbs of the program: one function each, called with the words after the verb. Returns the exit code;
// user errors are thrown as UserError (exit code 2).
#pragma once
#include <string>
#include <vector>

namespace longreach {

using Arguments = std::vector<std::string>;

int train_verb(const Arguments& arguments);
int launch_verb(const Arguments& arguments);
int eval_verb(const Arguments& arguments);
int generate_verb(const Arguments& arguments);
int import_verb(const Arguments& arguments);
int export_verb(const Arguments& arguments);
int data_verb(const Arguments& arguments);
int verify_verb(const Arguments& arguments);
int bench_verb(const Arguments& arguments);
int bench_train(const Arguments& arguments);                 // bench train
int bench_decode(const Arguments& arguments, bool prefill);  // bench decode, bench prefill
int bench_scaling(const Arguments& arguments);               // bench scaling
int bench_context_scaling(const Arguments& arguments);       // bench scaling --context
int bench_exchanges(const Arguments& arguments);             // bench exchanges
int bench_estimate(const Arguments& arguments);              // bench estimate
int plot_verb(const Arguments& arguments);
int info_verb(const Arguments& arguments);

}  // namespace longreach
