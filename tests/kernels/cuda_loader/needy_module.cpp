// A CUDA module that needs a library of its own, as the real one needs NVIDIA's.
int lockstep_absent();
int lockstep_needs();
int lockstep_needs() { return lockstep_absent(); }
