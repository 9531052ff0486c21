//! Arithmetic with natural numbers, as far as the checks of public keys need it. All inputs are
//! public, so no operation takes constant time.

use std::cmp::Ordering;

/// A natural number: its digits to the base 2³², the lowest first and the highest not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Natural(Vec<u32>);

impl Natural {
    /// Reads a number from bytes, the highest first.
    pub(super) fn from_be_bytes(bytes: &[u8]) -> Self {
        let digits = bytes.rchunks(4).map(|chunk| chunk.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        Self::trimmed(digits.collect())
    }

    /// Reads a number from bytes, the lowest first.
    pub(super) fn from_le_bytes(bytes: &[u8]) -> Self {
        Self::from_be_bytes(&bytes.iter().rev().copied().collect::<Vec<_>>())
    }

    /// Reads a number from hexadecimal digits, the highest first.
    pub(super) fn from_hex(digits: &str) -> Self {
        let digit = |c: char| c.to_digit(16).unwrap_or_default();
        let chunk = |chunk: &[u32]| chunk.iter().fold(0, |sum, digit| sum << 4 | digit);
        Self::trimmed(digits.chars().map(digit).collect::<Vec<_>>().rchunks(8).map(chunk).collect())
    }

    fn trimmed(mut digits: Vec<u32>) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Self(digits)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_odd(&self) -> bool {
        self.lowest() % 2 == 1
    }

    #[cfg(test)]
    pub(super) fn low_byte(&self) -> u8 {
        self.lowest().to_le_bytes()[0]
    }

    fn lowest(&self) -> u32 {
        self.0.first().copied().unwrap_or_default()
    }

    /// Returns the number of bits without leading zeros.
    pub(super) fn bit_len(&self) -> usize {
        self.0.last().map_or(0, |highest| self.0.len() * 32 - highest.leading_zeros() as usize)
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let (mut sum, mut carry) = (Vec::with_capacity(self.0.len().max(other.0.len()) + 1), 0);
        for (ours, theirs) in self.padded(other.0.len() + 1).zip(other.padded(self.0.len() + 1)) {
            carry += u64::from(ours) + u64::from(theirs);
            sum.push(low_half(carry));
            carry >>= 32;
        }
        Self::trimmed(sum)
    }

    /// Subtracts a number that is not greater. For a greater one, the result is zero.
    pub(super) fn saturating_sub(&self, other: &Self) -> Self {
        if *self < *other {
            return Self::default();
        }
        let (mut difference, mut borrow) = (Vec::with_capacity(self.0.len()), false);
        for (ours, theirs) in self.0.iter().copied().zip(other.padded(self.0.len())) {
            let (partial, first) = ours.overflowing_sub(theirs);
            let (digit, second) = partial.overflowing_sub(u32::from(borrow));
            difference.push(digit);
            borrow = first || second;
        }
        Self::trimmed(difference)
    }

    pub(super) fn mul(&self, other: &Self) -> Self {
        let mut product = vec![0_u32; self.0.len() + other.0.len()];
        for (n, ours) in self.0.iter().enumerate() {
            let mut carry = 0;
            let theirs = other.0.iter().copied().chain([0]);
            for (digit, theirs) in product.iter_mut().skip(n).zip(theirs) {
                carry += u64::from(*digit) + u64::from(*ours) * u64::from(theirs);
                *digit = low_half(carry);
                carry >>= 32;
            }
        }
        Self::trimmed(product)
    }

    /// Divides by 2 to the power of `bits` and drops the remainder.
    pub(super) fn shift_right(&self, bits: usize) -> Self {
        let from = self.0.iter().skip(bits / 32).copied();
        let next = self.0.iter().skip(bits / 32 + 1).copied().chain([0]);
        let shifted =
            from.zip(next).map(|(low, high)| low_half((u64::from(high) << 32 | u64::from(low)) >> (bits % 32)));
        Self::trimmed(shifted.collect())
    }

    /// Returns the remainder of a division by 2 to the power of `bits`.
    fn low_bits(&self, bits: usize) -> Self {
        let mut digits = self.0.iter().take(bits.div_ceil(32)).copied().collect::<Vec<_>>();
        if !bits.is_multiple_of(32) && digits.len() == bits.div_ceil(32) {
            let highest = digits.pop().unwrap_or_default();
            digits.push(highest & ((1 << (bits % 32)) - 1));
        }
        Self::trimmed(digits)
    }

    fn trailing_zeros(&self) -> usize {
        let zeros = self.0.iter().take_while(|digit| **digit == 0).count();
        self.0.get(zeros).map_or(0, |digit| zeros * 32 + digit.trailing_zeros() as usize)
    }

    /// Iterates over the digits, followed by zeros up to this number of digits.
    fn padded(&self, len: usize) -> impl Iterator<Item = u32> {
        let zeros = len.saturating_sub(self.0.len());
        self.0.iter().copied().chain(std::iter::repeat_n(0, zeros))
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<u32> for Natural {
    fn from(digit: u32) -> Self {
        Self::trimmed(vec![digit])
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn low_half(wide: u64) -> u32 {
    wide as u32
}

/// A prime just below a power of two, as the primes of the standard curves are.
#[derive(Clone, Debug)]
pub(super) struct Prime {
    value: Natural,
    /// The length of the prime in bits.
    bits: usize,
    /// 2 to the power of `bits`, less the prime.
    distance: Natural,
}

impl Prime {
    pub(super) fn new(prime: Natural) -> Self {
        let bits = prime.bit_len();
        let mut power = vec![0_u32; bits / 32];
        power.push(1 << (bits % 32));
        let distance = Natural::trimmed(power).saturating_sub(&prime);
        Self { value: prime, bits, distance }
    }

    pub(super) fn as_natural(&self) -> &Natural {
        &self.value
    }

    /// Returns the remainder of a division by the prime.
    pub(super) fn reduce(&self, number: &Natural) -> Natural {
        let mut number = number.clone();
        while number.bit_len() > self.bits {
            number = number.low_bits(self.bits).add(&number.shift_right(self.bits).mul(&self.distance));
        }
        while number >= self.value {
            number = number.saturating_sub(&self.value);
        }
        number
    }

    pub(super) fn multiply(&self, a: &Natural, b: &Natural) -> Natural {
        self.reduce(&a.mul(b))
    }

    /// Subtracts numbers that are less than the prime.
    pub(super) fn subtract(&self, a: &Natural, b: &Natural) -> Natural {
        self.reduce(&a.add(&self.value).saturating_sub(b))
    }

    /// Returns whether a number less than the prime is a square modulo the prime: its Jacobi symbol
    /// is not -1.
    pub(super) fn is_square(&self, number: &Natural) -> bool {
        let (mut upper, mut lower, mut is_negative) = (number.clone(), self.value.clone(), false);
        while !upper.is_zero() {
            let twos = upper.trailing_zeros();
            upper = upper.shift_right(twos);
            is_negative ^= twos % 2 == 1 && matches!(lower.lowest() % 8, 3 | 5);
            if upper < lower {
                is_negative ^= upper.lowest() % 4 == 3 && lower.lowest() % 4 == 3;
                std::mem::swap(&mut upper, &mut lower);
            }
            upper = upper.saturating_sub(&lower);
        }
        !is_negative
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn natural(number: u128) -> Natural {
        Natural::from_be_bytes(&number.to_be_bytes())
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_machine_integers(a in any::<u64>(), b in any::<u64>(), shift in 0_usize..130) {
            let (a, b) = (u128::from(a), u128::from(b));
            prop_assert_eq!(natural(a).add(&natural(b)), natural(a + b));
            prop_assert_eq!(natural(a).saturating_sub(&natural(b)), natural(a.saturating_sub(b)));
            prop_assert_eq!(natural(a).mul(&natural(b)), natural(a * b));
            prop_assert_eq!(natural(a).cmp(&natural(b)), a.cmp(&b));
            prop_assert_eq!(natural(a).bit_len(), 128 - a.leading_zeros() as usize);
            let product = a * b;
            let shifted = product.checked_shr(u32::try_from(shift).unwrap()).unwrap_or_default();
            prop_assert_eq!(natural(product).shift_right(shift), natural(shifted));
            let mask = 1_u128.checked_shl(u32::try_from(shift).unwrap()).map_or(u128::MAX, |power| power - 1);
            prop_assert_eq!(natural(product).low_bits(shift), natural(product & mask));
        }

        #[test]
        fn modular_arithmetic_agrees_with_machine_integers(a in any::<u64>(), b in any::<u64>()) {
            // The largest primes below 2³², 2⁴⁰ and 2⁶³, and 2⁶¹ - 1.
            for prime in [(1_u128 << 32) - 5, (1 << 40) - 87, (1 << 63) - 25, (1 << 61) - 1] {
                let modulus = Prime::new(natural(prime));
                let (a, b) = (u128::from(a), u128::from(b));
                prop_assert_eq!(modulus.multiply(&natural(a), &natural(b)), natural(a * b % prime));
                let (a, b) = (a % prime, b % prime);
                prop_assert_eq!(modulus.subtract(&natural(a), &natural(b)), natural((a + prime - b) % prime));
            }
        }
    }

    #[test]
    fn is_square_agrees_with_list_of_squares() {
        for prime in [3_u32, 5, 7, 11, 13, 17, 61, 127, 251] {
            let modulus = Prime::new(prime.into());
            let squares = (0..prime).map(|root| root * root % prime).collect::<Vec<_>>();
            for number in 0..prime {
                assert_eq!(modulus.is_square(&number.into()), squares.contains(&number), "{number} modulo {prime}");
            }
        }
    }

    #[test]
    fn byte_order_is_observed() {
        assert_eq!(Natural::from_be_bytes(&[0, 0, 1, 2, 3, 4, 5]), natural(0x01_0203_0405));
        assert_eq!(Natural::from_le_bytes(&[5, 4, 3, 2, 1, 0, 0]), natural(0x01_0203_0405));
        assert!(Natural::from_be_bytes(&[0; 9]).is_zero() && !Natural::from(2).is_odd() && Natural::from(3).is_odd());
    }
}
