#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "core/dtype.hpp"
#include "nn/workspace.hpp"

namespace lockstep::nn {

/// Up to four dimensions, row-major.
struct Shape {
  std::array<std::int64_t, 4> dim{};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    for (const std::int64_t d : dims) dim[static_cast<std::size_t>(rank++)] = d;
  }
  [[nodiscard]] std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[static_cast<std::size_t>(i)];
    return n;
  }
  [[nodiscard]] std::int64_t last() const { return dim[static_cast<std::size_t>(rank - 1)]; }
  [[nodiscard]] std::int64_t rows() const { return elements() / last(); }
  [[nodiscard]] std::string text() const;  ///< "[8, 256, 384]"
  bool operator==(const Shape&) const = default;
};

/// An activation. A value with shared ownership: its memory returns to the workspace when the last owner (model code
/// or a tape record that needs it for backward) lets go. `data()` is null while planning.
class Tensor {
  struct Node;

 public:
  Tensor() = default;
  Tensor(Workspace& workspace, Shape shape, DType dtype, int id);

  [[nodiscard]] bool defined() const { return node_ != nullptr; }
  [[nodiscard]] void* data() const { return node_->data; }
  template <class T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(node_->data);
  }
  [[nodiscard]] const Shape& shape() const { return node_->shape; }
  [[nodiscard]] DType dtype() const { return node_->dtype; }
  [[nodiscard]] int id() const { return node_->id; }  ///< order of creation within a pass
  /// The tensor without a share in its ownership, for who only looks.
  class Weak {
   public:
    Weak() = default;
    Weak(const Tensor& tensor) : node_(tensor.node_) {}
    /// Undefined once the last owner has let go.
    [[nodiscard]] Tensor lock() const {
      Tensor tensor;
      tensor.node_ = node_.lock();
      return tensor;
    }

   private:
    std::weak_ptr<Node> node_;
  };
  /// Whether somebody else owns this tensor too, so that writing to it in place would be seen.
  [[nodiscard]] bool shared() const { return node_.use_count() > 1; }

 private:
  struct Node {
    Workspace* workspace;
    std::size_t offset;
    void* data;
    Shape shape;
    DType dtype;
    int id;
    Node(Workspace& w, Shape s, DType d, int i);
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;
    ~Node();
  };
  std::shared_ptr<Node> node_;
};

/// A tensor's identity without its memory: what a tape record keeps to look up or give a gradient.
struct TensorRef {
  int id = -1;
  Shape shape = {};
  DType dtype = DType::f32;

  TensorRef(const Tensor& tensor) : id(tensor.id()), shape(tensor.shape()), dtype(tensor.dtype()) {}
};

}  // namespace lockstep::nn
