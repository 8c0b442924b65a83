#pragma once

// Hot CPU files are compiled once per instruction set, each into a namespace of its own (cmake/lockstep.cmake sets
// LOCKSTEP_ISA). Such a file uses no inline function or template of the standard library with external linkage in hot
// or cold paths beyond <cmath> and raw loops: the linker keeps one copy of those and might keep the one with the wider
// instructions.
#ifndef LOCKSTEP_ISA
#define LOCKSTEP_ISA baseline
#endif
#define LOCKSTEP_CONCAT_(a, b) a##b
#define LOCKSTEP_CONCAT(a, b) LOCKSTEP_CONCAT_(a, b)
#define LOCKSTEP_ISA_NS LOCKSTEP_CONCAT(cpu_, LOCKSTEP_ISA)
