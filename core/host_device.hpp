#pragma once

// Marks a function that also compiles for the device. The SIMT emulator compiles the same sources with g++,
// where the mark is empty.
#if defined(__CUDACC__)
#define LOCKSTEP_HOST_DEVICE __host__ __device__
#else
#define LOCKSTEP_HOST_DEVICE
#endif
