//! Polynomials over GF(2): carry-less products, the field GF(2^128), an additive Fourier transform over it,
//! and polynomial hashes.
//!
//! Everything here gives the same bits with every [`Backend`]; only the speed differs. No memory access and no
//! branch depends on the data, only on lengths.
//!
//! The field is GF(2)\[x\] / (x^128 + x^7 + x^2 + x + 1); bit `i` of a `u128` is the coefficient of x^i.

mod basis;
mod hash;
mod middle;
mod portable;
mod product;
mod simd;
mod transform;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use basis::cantor_basis;
pub use hash::{HASH_STRIDE_BYTES, HashKey, hash_words};
pub use middle::{MIDDLE_PADDING, middle_product};
pub use portable::{clmul, mul128};
pub use simd::{Backend, Lanes};
pub use transform::{MAX_LOG_LEN, MIN_LOG_LEN, Transform, unfolded_len};
