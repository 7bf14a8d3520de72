#include "launch/cli/command_line.h"

int main(int argc, char** argv) { return accrete::launch::run_command_line({argv, argv + argc}); }
