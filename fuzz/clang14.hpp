#pragma once

// Included before everything else in the fuzzing build. In C++20 libstdc++ 12 has a constexpr std::vector, and clang 14
// instantiates such members where they are named, also if the elements' type is still incomplete, as that of a tree's
// children is: config/document.hpp does not compile. So a vector is here what it was before C++20: without constexpr.
#pragma GCC system_header

// What <vector> includes, as it is.
#include <algorithm>
#include <memory>
#include <string>
#include <tuple>

#undef _GLIBCXX20_CONSTEXPR
#define _GLIBCXX20_CONSTEXPR
#include <bits/stl_vector.h>
// One function of vector<bool>, std::fill's, is declared before in the other way; nothing here calls it.
#define __fill_a1 __fill_bits
#include <bits/stl_bvector.h>
#undef __fill_a1
#include <vector>
#undef _GLIBCXX20_CONSTEXPR
#define _GLIBCXX20_CONSTEXPR constexpr
