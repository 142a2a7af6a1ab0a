// Where the interpreter puts the elements of tensor-core operands, against CuTe's layouts, which NVIDIA wrote
// independently.
// The headers are optional: tools/fetch_cutlass.py fetches them.
#include <gtest/gtest.h>

#include "tests/ptx/interpreter/tensor_core.h"
#include "tests/ptx/interpreter/wgmma.h"

#if __has_include(<cute/layout.hpp>)
#include <cute/tensor.hpp>  // before the rest, which leans on it

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>

namespace longreach::ptx {
namespace {

namespace gmma = cute::SM90::GMMA;

// CuTe's layouts of A, B and C map (lane, element) to row + rows * column, with B as N x K.
template <class Layout, class Ours>
void expect_fragment(const Layout& layout, unsigned lanes, unsigned elements, unsigned rows, const Ours& ours,
                     bool turned = false) {
  ASSERT_EQ(static_cast<unsigned>(cute::size(layout)), lanes * elements);
  for (unsigned l = 0; l < lanes; ++l) {
    for (unsigned e = 0; e < elements; ++e) {
      const Place2 p = ours(l, e);
      const unsigned place = turned ? p.column + rows * p.row : p.row + rows * p.column;
      ASSERT_EQ(static_cast<unsigned>(layout(l, e)), place) << "lane " << l << " element " << e;
    }
  }
}

template <class Atom>
void expect_mma16(unsigned depth) {
  using Traits = cute::MMA_Traits<Atom>;
  expect_fragment(typename Traits::ALayout{}, 32, depth / 2, 16, mma_a16);
  expect_fragment(typename Traits::BLayout{}, 32, depth / 4, 8, mma_b16, true);
  expect_fragment(typename Traits::CLayout{}, 32, 4, 16, mma_c);
}

TEST(CuteLayouts, Mma) {
  expect_mma16<cute::SM80_16x8x16_F32BF16BF16F32_TN>(16);
  expect_mma16<cute::SM80_16x8x16_F32F16F16F32_TN>(16);
  expect_mma16<cute::SM80_16x8x8_F32BF16BF16F32_TN>(8);
  expect_mma16<cute::SM80_16x8x8_F32F16F16F32_TN>(8);
}

template <class Atom>
void expect_mma32(unsigned depth) {
  using Traits = cute::MMA_Traits<Atom>;
  expect_fragment(typename Traits::ALayout{}, 32, depth / 2, 16, mma_a32);
  expect_fragment(typename Traits::BLayout{}, 32, depth / 4, 8, mma_b32, true);
  expect_fragment(typename Traits::CLayout{}, 32, 4, 16, mma_c);
}

TEST(CuteLayouts, MmaTf32) {
  expect_mma32<cute::SM80_16x8x8_F32TF32TF32F32_TN>(8);
  expect_mma32<cute::SM80_16x8x4_F32TF32TF32F32_TN>(4);
}

TEST(CuteLayouts, Ldmatrix) {
  // Bits of an 8x8 matrix, whose rows of 128 bits the lanes address.
  const typename cute::Copy_Traits<cute::SM75_U32x1_LDSM_N>::DstLayout layout;
  for (unsigned l = 0; l < 32; ++l) {
    for (unsigned e = 0; e < 2; ++e) {
      const Place2 p = ldmatrix_element(l, e);
      ASSERT_EQ(static_cast<unsigned>(layout(l, e * 16)), p.row * 128 + p.column * 16);
    }
  }
}

template <class Atom>
void expect_wgmma(unsigned n) {
  expect_fragment(typename cute::MMA_Traits<Atom>::CLayout{}, 128, n / 2, 64, wgmma_d);
}

TEST(CuteLayouts, WgmmaSums) {
  constexpr auto kK = gmma::Major::K;
  expect_wgmma<gmma::MMA_64x8x16_F32BF16BF16_SS<kK, kK>>(8);
  expect_wgmma<gmma::MMA_64x64x16_F32BF16BF16_SS<kK, kK>>(64);
  expect_wgmma<gmma::MMA_64x256x16_F32F16F16_SS<kK, kK>>(256);
}

TEST(CuteLayouts, WgmmaARegisters) {
  using Traits = cute::MMA_Traits<gmma::MMA_64x64x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K>>;
  expect_fragment(typename Traits::ALayout{}, 128, 8, 64, [](unsigned t, unsigned e) {
    const Place2 p = mma_a16(t % 32, e);
    return Place2{t / 32 * 16 + p.row, p.column};
  });
}

// Bytes of 16-bit elements (mn, k) of a tile of 128 x 16 built from one of CuTe's atoms. Along MN and then K
// the atoms follow one another, which fixes the leading and the stride offset of the descriptor.
template <class Atom>
void expect_shared(const Atom& atom, const MatrixDescriptor& descriptor, bool mn_major) {
  const auto tile = cute::as_position_independent_swizzle_layout(
      cute::tile_to_shape(atom, cute::make_shape(cute::Int<128>{}, cute::Int<64>{})));
  for (unsigned mn = 0; mn < 128; ++mn) {
    for (unsigned k = 0; k < 16; ++k) {
      ASSERT_EQ(static_cast<unsigned>(tile(mn, k)) * 2, descriptor.address(mn, k, mn_major))
          << mn << " " << k;
    }
  }
}

TEST(CuteLayouts, WgmmaSharedMemory) {
  using T = cute::bfloat16_t;
  expect_shared(gmma::Layout_K_SW128_Atom<T>{}, {.stride = 1024, .swizzle_bytes = 128}, false);
  expect_shared(gmma::Layout_K_SW64_Atom<T>{}, {.stride = 512, .swizzle_bytes = 64}, false);
  expect_shared(gmma::Layout_K_SW32_Atom<T>{}, {.stride = 256, .swizzle_bytes = 32}, false);
  expect_shared(gmma::Layout_K_INTER_Atom<T>{}, {.leading = 16 * 128, .stride = 128, .swizzle_bytes = 0},
                false);
  expect_shared(gmma::Layout_MN_SW128_Atom<T>{}, {.leading = 1024, .stride = 2048, .swizzle_bytes = 128},
                true);
  expect_shared(gmma::Layout_MN_SW64_Atom<T>{}, {.leading = 512, .stride = 2048, .swizzle_bytes = 64}, true);
  expect_shared(gmma::Layout_MN_SW32_Atom<T>{}, {.leading = 256, .stride = 2048, .swizzle_bytes = 32}, true);
  expect_shared(gmma::Layout_MN_INTER_Atom<T>{}, {.leading = 2048, .stride = 128, .swizzle_bytes = 0}, true);
}

}  // namespace
}  // namespace longreach::ptx

#else

TEST(CuteLayouts, Skipped) {
  GTEST_SKIP() << "skipped: no CUTLASS headers; tools/fetch_cutlass.py fetches them, then configure again";
}

#endif
