//! Status bit array and its compression (draft-ietf-oauth-status-list §4).

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::domain::encode_base64url;

/// The number of bits of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 0 or 1.
    One,
    /// 0 to 3.
    Two,
    /// 0 to 15.
    Four,
    /// 0 to 255.
    Eight,
}

impl Width {
    /// Returns the number of bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    const fn mask(self) -> u8 {
        u8::MAX >> (8 - self.bits())
    }

    /// Returns the byte of a status, and the offset of its lowest bit.
    fn locate(self, index: u64) -> (Option<usize>, u32) {
        let per_byte = u64::from(8 / self.bits());
        let shift = u32::try_from(index % per_byte).unwrap_or_default() * u32::from(self.bits());
        (usize::try_from(index / per_byte).ok(), shift)
    }
}

/// An array of statuses, packed from the lowest bits of each byte (§4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusBits {
    width: Width,
    bytes: Vec<u8>,
}

impl StatusBits {
    /// Returns an array of statuses that are all 0, rounded up to whole bytes.
    #[must_use]
    pub fn new(width: Width, size: u64) -> Self {
        let bytes = size.saturating_mul(u64::from(width.bits())).div_ceil(8);
        Self { width, bytes: vec![0; usize::try_from(bytes).unwrap_or_default()] }
    }

    /// Returns the number of bits of a status.
    #[must_use]
    pub fn width(&self) -> Width {
        self.width
    }

    /// Returns a status, or `None` beyond the end.
    #[must_use]
    pub fn status(&self, index: u64) -> Option<u8> {
        let (byte, shift) = self.width.locate(index);
        Some(self.bytes.get(byte?)? >> shift & self.width.mask())
    }

    /// Sets a status and returns whether it changed. An index beyond the end, and bits beyond the
    /// width, are ignored.
    pub fn set(&mut self, index: u64, status: u8) -> bool {
        let (byte, shift) = self.width.locate(index);
        let Some(byte) = byte.and_then(|byte| self.bytes.get_mut(byte)) else { return false };
        let mask = self.width.mask();
        let new = *byte & !(mask << shift) | (status & mask) << shift;
        let has_changed = new != *byte;
        *byte = new;
        has_changed
    }

    /// Returns the array as transmitted: DEFLATE in ZLIB format (RFC 1950) at the highest level, in
    /// base64url without padding (§4.2).
    #[must_use]
    pub fn compress(&self) -> String {
        encode_base64url(&deflate(Compress::new(Compression::best(), true), &self.bytes))
    }
}

/// Compresses a response body with gzip (RFC 9110 §8.4.1.3).
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    /// A window of 32 KiB, which every decoder supports.
    const WINDOW_BITS: u8 = 15;
    deflate(Compress::new_gzip(Compression::best(), WINDOW_BITS), bytes)
}

fn deflate(mut compress: Compress, bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(bytes.len() / 16 + 64);
    loop {
        let read = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = bytes.get(read..).unwrap_or_default();
        match compress.compress_vec(rest, &mut compressed, FlushCompress::Finish) {
            // Reading from memory does not fail, and the output buffer grows as needed.
            Ok(Status::StreamEnd) | Err(_) => return compressed,
            Ok(Status::Ok | Status::BufError) => compressed.reserve(compressed.capacity().max(64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::decode_base64url;

    fn inflate(text: &str, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 1);
        let compressed = decode_base64url(text).unwrap();
        let status = Decompress::new(true).decompress_vec(&compressed, &mut bytes, FlushDecompress::Finish).unwrap();
        assert_eq!(status, Status::StreamEnd);
        bytes
    }

    fn assert_vector_matches(width: Width, lst: &str, statuses: impl IntoIterator<Item = (u64, u8)>) {
        // "All examples are initialized with a size of 2^20 entries."
        let mut bits = StatusBits::new(width, 1 << 20);
        for (index, status) in statuses {
            assert_eq!(bits.set(index, status), status != 0);
            assert_eq!(bits.status(index), Some(status));
        }
        let published = inflate(lst, bits.bytes.len());
        assert!(published == bits.bytes, "{width:?}: different bits");
        assert!(inflate(&bits.compress(), bits.bytes.len()) == bits.bytes, "{width:?}: no round trip");
    }

    /// §4.1, with all steps.
    #[test]
    fn draft_section_4_1_examples_encode_as_published() {
        let ones = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
        let twos = [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3];
        for (width, statuses, bytes, lst) in [
            (Width::One, &ones[..], &[0xb9, 0xa3][..], "eNrbuRgAAhcBXQ"),
            (Width::Two, &twos[..], &[0xc9, 0x44, 0xf9][..], "eNo76fITAAPfAgc"),
        ] {
            let mut bits = StatusBits::new(width, statuses.len() as u64);
            for (index, status) in (0..).zip(statuses) {
                bits.set(index, *status);
            }
            assert_eq!(bits.bytes, bytes);
            assert_eq!(bits.compress(), lst);
            assert_eq!(bits.status(statuses.len() as u64), None, "no status beyond the end");
        }
    }

    /// Appendix C.1 to C.4.
    #[test]
    fn draft_appendix_c_vectors_encode_as_published() {
        let vectors = include_str!("vectors.json");
        let vectors = serde_json::from_str::<Vec<(u8, String, Vec<(u64, u8)>)>>(vectors).unwrap();
        assert_eq!(vectors.len(), 4);
        for ((bits, lst, statuses), width) in
            vectors.into_iter().zip([Width::One, Width::Two, Width::Four, Width::Eight])
        {
            assert_eq!(bits, width.bits());
            assert_vector_matches(width, &lst, statuses);
        }
    }

    proptest! {
        #[test]
        fn set_changes_only_the_given_index(
            width in prop_oneof![Just(Width::One), Just(Width::Two), Just(Width::Four), Just(Width::Eight)],
            writes in proptest::collection::vec((0..200_u64, any::<u8>()), 0..40),
        ) {
            let mut bits = StatusBits::new(width, 100);
            let mut want = vec![0; 100];
            for (index, status) in writes {
                let status = status & width.mask();
                let has_changed = bits.set(index, status);
                match usize::try_from(index).ok().and_then(|index| want.get_mut(index)) {
                    Some(current) => prop_assert_eq!(std::mem::replace(current, status) != status, has_changed),
                    // The last byte may hold more statuses.
                    None => prop_assert!(index < 104 || !has_changed),
                }
            }
            let read = (0..100).map(|index| bits.status(index).unwrap()).collect::<Vec<_>>();
            prop_assert_eq!(read, want);
            prop_assert!(inflate(&bits.compress(), bits.bytes.len()) == bits.bytes);
        }

        #[test]
        fn gzip_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let mut back = Vec::with_capacity(bytes.len() + 1);
            let gzipped = gzip(&bytes);
            Decompress::new_gzip(15).decompress_vec(&gzipped, &mut back, FlushDecompress::Finish).unwrap();
            prop_assert_eq!(back, bytes);
        }
    }

    #[test]
    fn empty_list_compresses_to_under_200_bytes() {
        assert!(StatusBits::new(Width::Two, 1 << 18).compress().len() < 200);
    }
}
