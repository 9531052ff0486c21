//! Checks of public keys (RFC 7517, RFC 7518 §6, RFC 8037 §2) before anything is verified with
//! them.
//!
//! A library that verifies signatures checks less than a registration needs. Some accept an Ed25519
//! key of small order, for which any party can make a valid signature. Others reject a weak key
//! only when they use it, so that the client does not learn why its assertions fail.

use std::sync::LazyLock;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    jwk::{JwkSet, JwsAlgorithm},
    natural::{Natural, Prime},
};
use crate::domain::decode_base64url;

/// The sizes of an RSA modulus in bits. RFC 7518 §3.3 requires 2048; verification with a larger key
/// than this takes too long.
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The largest size of an RSA exponent in bits. Verification with a longer one takes too long.
const MAX_RSA_EXPONENT_BITS: usize = 40;

/// Why a JWK is not a public key that can verify signatures safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublicKeyError {
    /// `kty` or `crv` names another kind of key.
    #[error("`kty` and `crv` must be RSA, EC with P-256, P-384 or P-521, or OKP with Ed25519")]
    UnsupportedKind,
    /// `use` or `key_ops` excludes the verification of signatures (RFC 7517 §4.2, §4.3).
    #[error("`use` or `key_ops` does not allow the verification of signatures")]
    OtherUse,
    /// `alg` does not fit the kind of key (RFC 7517 §4.4).
    #[error("`alg` names an algorithm that is not supported for this kind of key")]
    UnfitAlgorithm,
    /// A member has another type than a string, or an array of strings for `key_ops`.
    #[error("`{0}` has the wrong type")]
    WrongType(&'static str),
    /// A member of the key is missing or malformed.
    #[error("`{0}` must be base64url without padding")]
    InvalidMember(&'static str),
    /// A coordinate has another length than the curve requires (RFC 7518 §6.2.1.2).
    #[error("`{member}` must have {bytes} bytes")]
    InvalidLength {
        /// The member.
        member: &'static str,
        /// The required length.
        bytes: usize,
    },
    /// The coordinates are not those of a point on the curve.
    #[error("the point is not on the curve")]
    NotOnCurve,
    /// The coordinate of an Ed25519 key is not less than the prime of the field (RFC 8032 §5.1.3).
    #[error("the point is not encoded canonically")]
    NonCanonicalPoint,
    /// The Ed25519 point has an order of 8 or less. Signatures can be made without a private key.
    #[error("the point has a small order, so that signatures can be made without a private key")]
    SmallOrder,
    /// The RSA modulus is too short (RFC 7518 §3.3).
    #[error("the modulus `n` must have at least 2048 bits")]
    ModulusTooShort,
    /// The RSA modulus is too long.
    #[error("the modulus `n` must have at most 8192 bits")]
    ModulusTooLong,
    /// The RSA modulus is even, so that its factors are known.
    #[error("the modulus `n` is even, so that its factors are known")]
    EvenModulus,
    /// The RSA exponent is 0 or 1. With 1, the signature of a message is its padded hash.
    #[error("the exponent `e` must be at least 3, such as 65537 (`AQAB`)")]
    ExponentTooSmall,
    /// The RSA exponent is even, which no key pair has.
    #[error("the exponent `e` must be odd, such as 65537 (`AQAB`)")]
    EvenExponent,
    /// The RSA exponent is too long.
    #[error("the exponent `e` must have at most 40 bits, such as 65537 (`AQAB`)")]
    ExponentTooLong,
}

impl PublicKeyError {
    /// Returns whether the key is for another purpose or of a kind that is not supported, which is
    /// no defect: key sets contain such keys, and a recipient ignores them (RFC 7517 §5).
    #[must_use]
    pub fn is_other_purpose(self) -> bool {
        matches!(self, Self::UnsupportedKind | Self::OtherUse | Self::UnfitAlgorithm)
    }
}

/// A public key that passed all checks.
#[derive(Clone, Debug)]
pub struct PublicKey<'a> {
    jwk: &'a Map<String, Value>,
    kind: KeyKind,
    kid: Option<&'a str>,
    alg: Option<JwsAlgorithm>,
}

/// The supported kinds of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyKind {
    fn algorithms(self) -> &'static [JwsAlgorithm] {
        use JwsAlgorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::P256 => &[ES256],
            Self::P384 => &[ES384],
            Self::P521 => &[ES512],
            Self::Ed25519 => &[EdDSA],
        }
    }

    /// Returns the members that make up the key.
    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Rsa => &["kty", "n", "e"],
            Self::P256 | Self::P384 | Self::P521 => &["kty", "crv", "x", "y"],
            Self::Ed25519 => &["kty", "crv", "x"],
        }
    }
}

impl<'a> PublicKey<'a> {
    /// Checks a JWK. `use`, `key_ops` and `alg` (RFC 7517 §4.2 to §4.4) are binding when present,
    /// and so is their type. Some issuers write `null` for a member that is absent.
    pub fn parse(jwk: &'a Map<String, Value>) -> Result<Self, PublicKeyError> {
        let text = |name: &'static str| match jwk.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(PublicKeyError::WrongType(name)),
        };
        let kind = match (text("kty")?, text("crv")?) {
            (Some("RSA"), _) => KeyKind::Rsa,
            (Some("EC"), Some("P-256")) => KeyKind::P256,
            (Some("EC"), Some("P-384")) => KeyKind::P384,
            (Some("EC"), Some("P-521")) => KeyKind::P521,
            // RFC 9864 names no other curve for EdDSA here; Ed448 is not supported.
            (Some("OKP"), Some("Ed25519")) => KeyKind::Ed25519,
            _ => return Err(PublicKeyError::UnsupportedKind),
        };
        let verifies = match jwk.get("key_ops") {
            None | Some(Value::Null) => true,
            Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
            Some(_) => return Err(PublicKeyError::WrongType("key_ops")),
        };
        if !verifies || text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(PublicKeyError::OtherUse);
        }
        let alg = text("alg")?.map(|alg| {
            let alg = JwsAlgorithm::parse(alg).filter(|alg| kind.algorithms().contains(alg));
            alg.ok_or(PublicKeyError::UnfitAlgorithm)
        });
        let (alg, kid) = (alg.transpose()?, text("kid")?);
        match kind {
            KeyKind::Rsa => check_rsa(jwk)?,
            KeyKind::P256 => P256.check(jwk)?,
            KeyKind::P384 => P384.check(jwk)?,
            KeyKind::P521 => P521.check(jwk)?,
            KeyKind::Ed25519 => check_ed25519(jwk)?,
        }
        Ok(Self { jwk, kind, kid, alg })
    }

    /// Returns the `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&'a str> {
        self.kid
    }

    /// Returns whether the key may verify signatures of this algorithm.
    #[must_use]
    pub fn supports(&self, algorithm: JwsAlgorithm) -> bool {
        self.kind.algorithms().contains(&algorithm) && self.alg.is_none_or(|alg| alg == algorithm)
    }

    /// Returns the members that make up the key (RFC 7638 §3.2), without any others.
    #[must_use]
    pub fn bare_jwk(&self) -> Map<String, Value> {
        let member = |name: &&str| Some(((*name).to_owned(), self.jwk.get(*name)?.clone()));
        self.kind.members().iter().filter_map(member).collect()
    }
}

/// A defect of a set of public keys with which a signer is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// A key can't be used safely.
    #[error("`keys[{index}]`: {error}")]
    UnsafeKey {
        /// The position of the key in `keys`.
        index: usize,
        /// The reason.
        error: PublicKeyError,
    },
    /// No key fits an algorithm of the signer.
    #[error("no key fits `algorithms`")]
    NoFittingKey,
}

impl KeySetError {
    /// Returns what to change.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::UnsafeKey { .. } => "replace the key",
            Self::NoFittingKey => "list the algorithms of these keys in `algorithms`",
        }
    }
}

/// Checks that each key can be used safely, and that one of them fits the algorithms. Keys for
/// other purposes are permitted (RFC 7517 §5).
#[must_use]
pub fn check_key_set(keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Vec<KeySetError> {
    let (mut errors, mut fits) = (Vec::new(), algorithms.is_empty());
    for (index, key) in keys.keys().enumerate() {
        match PublicKey::parse(key) {
            Ok(key) => fits |= algorithms.iter().any(|algorithm| key.supports(*algorithm)),
            Err(error) if error.is_other_purpose() => {}
            Err(error) => errors.push(KeySetError::UnsafeKey { index, error }),
        }
    }
    if !fits && errors.is_empty() {
        errors.push(KeySetError::NoFittingKey);
    }
    errors
}

fn decode_member(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, PublicKeyError> {
    let text = jwk.get(name).and_then(Value::as_str);
    text.and_then(decode_base64url).filter(|bytes| !bytes.is_empty()).ok_or(PublicKeyError::InvalidMember(name))
}

fn decode_coordinate(jwk: &Map<String, Value>, member: &'static str, bytes: usize) -> Result<Vec<u8>, PublicKeyError> {
    let coordinate = decode_member(jwk, member)?;
    if coordinate.len() == bytes { Ok(coordinate) } else { Err(PublicKeyError::InvalidLength { member, bytes }) }
}

fn check_rsa(jwk: &Map<String, Value>) -> Result<(), PublicKeyError> {
    let modulus = Natural::from_be_bytes(&decode_member(jwk, "n")?);
    let exponent = Natural::from_be_bytes(&decode_member(jwk, "e")?);
    match modulus.bit_len() {
        bits if bits < *RSA_MODULUS_BITS.start() => return Err(PublicKeyError::ModulusTooShort),
        bits if bits > *RSA_MODULUS_BITS.end() => return Err(PublicKeyError::ModulusTooLong),
        _ if !modulus.is_odd() => return Err(PublicKeyError::EvenModulus),
        _ => {}
    }
    match exponent.bit_len() {
        bits if bits > MAX_RSA_EXPONENT_BITS => Err(PublicKeyError::ExponentTooLong),
        _ if exponent <= 1.into() => Err(PublicKeyError::ExponentTooSmall),
        _ if !exponent.is_odd() => Err(PublicKeyError::EvenExponent),
        _ => Ok(()),
    }
}

/// A curve of NIST (FIPS 186-5): `y² = x³ - 3x + b` modulo a prime.
struct WeierstrassCurve {
    prime: Prime,
    b: Natural,
    coordinate_bytes: usize,
}

static P256: LazyLock<WeierstrassCurve> = LazyLock::new(|| {
    WeierstrassCurve::new(
        32,
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
        "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
    )
});
static P384: LazyLock<WeierstrassCurve> = LazyLock::new(|| {
    WeierstrassCurve::new(
        48,
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
    )
});
static P521: LazyLock<WeierstrassCurve> = LazyLock::new(|| {
    WeierstrassCurve::new(
        66,
        "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00",
    )
});

impl WeierstrassCurve {
    fn new(coordinate_bytes: usize, prime: &str, b: &str) -> Self {
        Self { prime: Prime::new(Natural::from_hex(prime)), b: Natural::from_hex(b), coordinate_bytes }
    }

    /// Checks that the coordinates are those of a point on the curve. The groups of these curves
    /// have a prime order, so no point has a small one.
    fn check(&self, jwk: &Map<String, Value>) -> Result<(), PublicKeyError> {
        let coordinate = |member| -> Result<Natural, PublicKeyError> {
            let bytes = decode_coordinate(jwk, member, self.coordinate_bytes)?;
            let number = Natural::from_be_bytes(&bytes);
            (number < *self.prime.as_natural()).then_some(number).ok_or(PublicKeyError::NotOnCurve)
        };
        let (x, y) = (coordinate("x")?, coordinate("y")?);
        let Self { prime, b, .. } = self;
        let cubic = prime.multiply(&prime.multiply(&x, &x), &x).add(b);
        let right = prime.subtract(&prime.reduce(&cubic), &prime.multiply(&x, &3.into()));
        if prime.multiply(&y, &y) == right { Ok(()) } else { Err(PublicKeyError::NotOnCurve) }
    }
}

/// The curve of Ed25519 (RFC 8032 §5.1): `-x² + y² = 1 + d x² y²` modulo 2²⁵⁵ - 19.
struct EdwardsCurve {
    prime: Prime,
    d: Natural,
    /// The y coordinates of the eight points of order 1, 2, 4 and 8.
    small_order: [Natural; 5],
}

static ED25519: LazyLock<EdwardsCurve> = LazyLock::new(|| {
    let prime = Natural::from_hex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed");
    let order_8 = Natural::from_hex("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826");
    let small_order = [
        Natural::default(),
        Natural::from(1),
        prime.saturating_sub(&1.into()),
        prime.saturating_sub(&order_8),
        order_8,
    ];
    let d = Natural::from_hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3");
    EdwardsCurve { prime: Prime::new(prime), d, small_order }
});

/// Checks that `x`, the encoding of a point, is canonical, on the curve and not of small order.
fn check_ed25519(jwk: &Map<String, Value>) -> Result<(), PublicKeyError> {
    let mut encoded = decode_coordinate(jwk, "x", 32)?;
    // The highest bit is the sign of the x coordinate.
    if let Some(highest) = encoded.last_mut() {
        *highest &= 0x7f;
    }
    let y = Natural::from_le_bytes(&encoded);
    let EdwardsCurve { prime, d, small_order } = &*ED25519;
    if y >= *prime.as_natural() {
        return Err(PublicKeyError::NonCanonicalPoint);
    }
    // Includes the points without an x coordinate other than zero, whose sign has two encodings.
    if small_order.contains(&y) {
        return Err(PublicKeyError::SmallOrder);
    }
    // x² is a fraction, and that is a square if the product of its parts is one.
    let y2 = prime.multiply(&y, &y);
    let numerator = prime.subtract(&y2, &1.into());
    let denominator = prime.reduce(&prime.multiply(d, &y2).add(&1.into()));
    let is_on_curve = prime.is_square(&prime.multiply(&numerator, &denominator));
    if is_on_curve { Ok(()) } else { Err(PublicKeyError::NotOnCurve) }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;
    use crate::domain::encode_base64url;

    fn check(jwk: &Value) -> Option<PublicKeyError> {
        PublicKey::parse(jwk.as_object().unwrap()).err()
    }

    fn ed25519(encoded: &[u8]) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(encoded)})
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect::<Vec<_>>();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// Every encoding of a point of small order, canonical or not, with both signs.
    #[test]
    fn ed25519_key_of_small_order_is_rejected() {
        for (encoded, want) in [
            ("0000000000000000000000000000000000000000000000000000000000000000", PublicKeyError::SmallOrder),
            ("0100000000000000000000000000000000000000000000000000000000000000", PublicKeyError::SmallOrder),
            ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", PublicKeyError::SmallOrder),
            ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", PublicKeyError::SmallOrder),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", PublicKeyError::SmallOrder),
            ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", PublicKeyError::NonCanonicalPoint),
            ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", PublicKeyError::NonCanonicalPoint),
            ("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", PublicKeyError::NonCanonicalPoint),
        ] {
            let mut encoded = bytes(encoded);
            assert_eq!(check(&ed25519(&encoded)), Some(want), "{encoded:02x?}");
            encoded[31] |= 0x80;
            assert_eq!(check(&ed25519(&encoded)), Some(want), "{encoded:02x?}");
        }
    }

    #[test]
    fn ed25519_key_must_be_a_point() {
        let mut decoded = [0_usize; 2];
        for seed in 0..64 {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            assert_eq!(check(&ed25519(pair.public_key().as_ref())), None, "{seed}");
            // Half of all texts are encodings of a point. This one is not: y = 2.
            let mut encoded = [0; 32];
            encoded[0] = seed;
            encoded[7] = 1;
            decoded[usize::from(check(&ed25519(&encoded)).is_none())] += 1;
        }
        assert!(decoded.iter().all(|count| *count > 16), "{decoded:?}");
        let mut two = [0; 32];
        two[0] = 2;
        assert_eq!(check(&ed25519(&two)), Some(PublicKeyError::NotOnCurve));
        // RFC 8037 appendix A.2.
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(check(&key), None);
        for length in [0, 31, 33, 57] {
            let want = match length {
                0 => PublicKeyError::InvalidMember("x"),
                _ => PublicKeyError::InvalidLength { member: "x", bytes: 32 },
            };
            assert_eq!(check(&ed25519(&vec![9; length])), Some(want), "{length} bytes");
        }
    }

    /// The base points (SEC 2 §2.4.2, §2.5.1, §2.6.1).
    const BASE_POINTS: [(&str, &str, &str); 3] = [
        (
            "P-256",
            "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
        ),
        (
            "P-384",
            "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
            "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
        ),
        (
            "P-521",
            "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
            "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650",
        ),
    ];

    #[test]
    fn ec_key_must_be_a_point() {
        for (crv, x, y) in BASE_POINTS {
            let (x, y) = (bytes(x), bytes(y));
            let key = |crv: &str, x: &[u8], y: &[u8]| {
                check(&json!({"kty": "EC", "crv": crv, "x": encode_base64url(x), "y": encode_base64url(y)}))
            };
            assert_eq!(key(crv, &x, &y), None, "{crv}");
            for at in [0, x.len() / 2, x.len() - 1] {
                let mut other = x.clone();
                other[at] ^= 1;
                assert_eq!(key(crv, &other, &y), Some(PublicKeyError::NotOnCurve), "{crv} x[{at}]");
                let mut other = y.clone();
                other[at] ^= 1;
                assert_eq!(key(crv, &x, &other), Some(PublicKeyError::NotOnCurve), "{crv} y[{at}]");
            }
            // (0, 0) represents the neutral element in some libraries.
            let zero = vec![0; x.len()];
            assert_eq!(key(crv, &zero, &zero), Some(PublicKeyError::NotOnCurve), "{crv}");
            assert_eq!(
                key(crv, &vec![0xff; x.len()], &y),
                Some(PublicKeyError::NotOnCurve),
                "{crv}: not below the prime"
            );
            let long = [&[0], x.as_slice()].concat();
            for (x, y, member) in [(&x[1..], &y[..], "x"), (&long, &y, "x"), (&x, &y[1..], "y"), (&x, &long, "y")] {
                let want = PublicKeyError::InvalidLength { member, bytes: zero.len() };
                assert_eq!(key(crv, x, y), Some(want), "{crv}");
            }
            for (other, ..) in BASE_POINTS.iter().filter(|(other, ..)| *other != crv) {
                assert!(matches!(key(other, &x, &y), Some(PublicKeyError::InvalidLength { .. })), "{crv} as {other}");
            }
        }
    }

    /// The same x with a y that is congruent modulo the prime, but not less than it.
    #[test]
    fn ec_coordinate_not_below_prime_is_rejected() {
        let curve = &*P521;
        let (_, x, y) = BASE_POINTS[2];
        let above = Natural::from_hex(y).add(curve.prime.as_natural());
        assert!(above.bit_len() <= 528, "fits into 66 bytes");
        let above = (0..66).rev().map(|n| above.shift_right(8 * n)).map(|n| n.low_byte()).collect::<Vec<_>>();
        let key = json!({"kty": "EC", "crv": "P-521", "x": encode_base64url(&bytes(x)), "y": encode_base64url(&above)});
        assert_eq!(check(&key), Some(PublicKeyError::NotOnCurve));
    }

    #[test]
    fn rsa_key_must_be_strong() {
        // A modulus of so many bits: the highest one, and the lowest unless it is even.
        let modulus = |bits: usize, is_odd: bool| {
            let mut bytes = vec![0_u8; bits.div_ceil(8)];
            bytes[0] = 1 << ((bits - 1) % 8);
            *bytes.last_mut().unwrap() |= u8::from(is_odd);
            bytes
        };
        let padded = [&[0, 0], modulus(2048, true).as_slice()].concat();
        let e = [1, 0, 1];
        for (n, e, want) in [
            (modulus(2048, true), &e[..], None),
            (modulus(8192, true), &e, None),
            (padded, &e, None),
            (modulus(2048, true), &[3], None),
            (modulus(2048, true), &[0, 0, 1, 0, 1], None),
            (modulus(2048, true), &[255; 5], None),
            (modulus(2047, true), &e, Some(PublicKeyError::ModulusTooShort)),
            (modulus(1024, true), &e, Some(PublicKeyError::ModulusTooShort)),
            (vec![0], &e, Some(PublicKeyError::ModulusTooShort)),
            (modulus(8193, true), &e, Some(PublicKeyError::ModulusTooLong)),
            (modulus(2048, false), &e, Some(PublicKeyError::EvenModulus)),
            (modulus(2048, true), &[0], Some(PublicKeyError::ExponentTooSmall)),
            (modulus(2048, true), &[1], Some(PublicKeyError::ExponentTooSmall)),
            (modulus(2048, true), &[0, 1], Some(PublicKeyError::ExponentTooSmall)),
            (modulus(2048, true), &[2], Some(PublicKeyError::EvenExponent)),
            (modulus(2048, true), &[1, 0, 0], Some(PublicKeyError::EvenExponent)),
            (modulus(2048, true), &[1, 0, 0, 0, 0, 1], Some(PublicKeyError::ExponentTooLong)),
            (modulus(2048, true), &[], Some(PublicKeyError::InvalidMember("e"))),
            (vec![], &e, Some(PublicKeyError::InvalidMember("n"))),
        ] {
            let key = json!({"kty": "RSA", "n": encode_base64url(&n), "e": encode_base64url(e)});
            assert_eq!(check(&key), want, "{} bytes, exponent {e:?}", n.len());
        }
    }

    #[test]
    fn key_set_needs_sound_keys_and_one_that_fits() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let weak = ed25519(&[0; 32]);
        let other = json!({"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQ"});
        let unknown = json!({"kty": "PQC", "alg": "ML-DSA-65", "pub": "AAAA"});
        let small = |index| KeySetError::UnsafeKey { index, error: PublicKeyError::SmallOrder };
        for (keys, algorithm, want) in [
            (vec![&good], JwsAlgorithm::EdDSA, vec![]),
            (vec![&unknown, &other, &good], JwsAlgorithm::EdDSA, vec![]),
            (vec![&good], JwsAlgorithm::ES256, vec![KeySetError::NoFittingKey]),
            (vec![&unknown, &other], JwsAlgorithm::EdDSA, vec![KeySetError::NoFittingKey]),
            (vec![&good, &weak], JwsAlgorithm::EdDSA, vec![small(1)]),
            (vec![&weak, &weak], JwsAlgorithm::EdDSA, vec![small(0), small(1)]),
        ] {
            let set = JwkSet::try_from(json!({ "keys": keys })).unwrap();
            assert_eq!(check_key_set(&set, &[algorithm]), want, "{keys:?} {algorithm}");
        }
    }

    #[test]
    fn members_are_binding() {
        let with = |more: Value| {
            let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check(&key)
        };
        for (more, want) in [
            (json!({"use": "sig", "key_ops": ["verify"], "alg": "EdDSA", "kid": "a", "y": 1}), None),
            (json!({"alg": "Ed25519"}), None),
            (json!({"use": "enc"}), Some(PublicKeyError::OtherUse)),
            (json!({"use": ""}), Some(PublicKeyError::OtherUse)),
            (json!({"use": 1}), Some(PublicKeyError::WrongType("use"))),
            (json!({"key_ops": []}), Some(PublicKeyError::OtherUse)),
            (json!({"key_ops": "verify"}), Some(PublicKeyError::WrongType("key_ops"))),
            (json!({"alg": "ES256"}), Some(PublicKeyError::UnfitAlgorithm)),
            (json!({"alg": "none"}), Some(PublicKeyError::UnfitAlgorithm)),
            // Some issuers write `null` for a member that is absent.
            (json!({"use": null, "key_ops": null, "alg": null, "kid": null}), None),
            (json!({"alg": ["EdDSA"]}), Some(PublicKeyError::WrongType("alg"))),
            (json!({"kid": 7}), Some(PublicKeyError::WrongType("kid"))),
            (json!({"kty": "EC"}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"kty": "oct"}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"kty": null}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"kty": 1}), Some(PublicKeyError::WrongType("kty"))),
            (json!({"crv": "Ed448"}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"crv": "X25519"}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"crv": "P-256"}), Some(PublicKeyError::UnsupportedKind)),
            (json!({"x": null}), Some(PublicKeyError::InvalidMember("x"))),
            (json!({"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="}), Some(PublicKeyError::InvalidMember("x"))),
        ] {
            assert_eq!(with(more.clone()), want, "{more}");
        }
        let key = json!({"kty": "RSA", "kid": "a", "n": encode_base64url(&[255; 256]), "e": "AQAB", "x5c": ["x"]});
        let key = PublicKey::parse(key.as_object().unwrap()).unwrap();
        assert_eq!(key.kid(), Some("a"));
        assert_eq!(key.bare_jwk().keys().collect::<Vec<_>>(), ["kty", "n", "e"]);
        assert!(key.supports(JwsAlgorithm::PS512) && !key.supports(JwsAlgorithm::ES256));
    }
}
