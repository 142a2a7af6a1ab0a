// What torch-free kernels are held to: float64 by Eigen, and how far sums in float32 may be from it. No ATen
// in between, so that a fault of a kernel is told from one of the operator around it.
#pragma once
#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <limits>

namespace longreach::test {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Seen = Eigen::Array<bool, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Element (i, j) lies at data[i * row + j * column].
inline Matrix matrix(const float* data, int64_t rows, int64_t columns, int64_t row, int64_t column = 1) {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  return Eigen::Map<const Floats, 0, Stride>(data, rows, columns, Stride(row, column)).cast<double>();
}

// By how much `count` roundings to float32 one after the other change a number, relative to it: Higham,
// Accuracy and Stability of Numerical Algorithms, lemma 3.1.
inline double roundings(int64_t count) {
  const double all = static_cast<double>(count) * 0x1p-24;
  return all / (1 - all);
}

// How far `a b + c` may be from the exact one where each element is a sum in float32 in any order: a
// product's own rounding, and at most one addition a term.
inline Matrix product_limit(const Matrix& a, const Matrix& b, const Matrix& c) {
  return roundings(a.cols() + 1) * (a.cwiseAbs() * b.cwiseAbs() + c.cwiseAbs());
}

// The softmax of each row over the pairs that are seen; a row that sees nothing has weights 0 and lse -inf.
struct Softmax {
  Matrix weights;
  Eigen::VectorXd lse;
};
inline Softmax softmax_rows(const Matrix& scores, const Seen& seen) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Matrix visible = seen.select(scores.array(), -kInfinity).matrix();
  Softmax result{Matrix::Zero(scores.rows(), scores.cols()),
                 Eigen::VectorXd::Constant(scores.rows(), -kInfinity)};
  for (int64_t i = 0; i < scores.rows(); ++i) {
    if (!seen.row(i).any()) continue;
    const double top = visible.row(i).maxCoeff();
    const Eigen::RowVectorXd powers = (visible.row(i).array() - top).exp();
    result.weights.row(i) = powers / powers.sum();
    result.lse[i] = top + std::log(powers.sum());
  }
  return result;
}

}  // namespace longreach::test
