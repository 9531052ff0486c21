//! A random number generator that returns the same sequence for the same seed.

/// A `SplitMix64` generator.
#[derive(Clone, Debug)]
pub struct SeededRng(u64);

impl SeededRng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a generator whose sequence is independent of this one.
    pub fn split(&mut self) -> Self {
        Self(self.next_u64())
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_u64() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// Returns a number from `start` up to, but not including, `end`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.next_u64() % (end - start)
    }
}
