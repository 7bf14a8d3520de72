// Part of the mpirun tests under the address sanitizer: modules of Open MPI stay loaded to the end, so that what they leak keeps the names
// by which lsan.supp tells it from leaks of ours.
extern "C" int dlclose(void*) { return 0; }
