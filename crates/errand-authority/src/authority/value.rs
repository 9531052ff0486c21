//! Lossless JSON values of arguments: a number is the decimal that was sent, not the nearest
//! double.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde::de::{self, Deserializer as _, MapAccess, Visitor};
use serde_json::{Number, Value, value::RawValue};

use crate::encoding::{jcs, strict_json::StrictJsonError};

/// The value of an argument, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string, compared by its Unicode scalar values.
    Text(String),
    /// An array.
    List(Vec<Arg>),
    /// An object.
    Object(BTreeMap<String, Arg>),
}

/// The kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    List,
    /// An object.
    Object,
}

impl Arg {
    /// Parses strict JSON: without duplicate members, with at most `depth` levels (a scalar is
    /// level 0), and without loss of digits.
    pub fn parse(text: &str, depth: usize) -> Result<Self, StrictJsonError> {
        // The first pass checks the syntax without recursion; then the text is parsed level by
        // level.
        let raw = serde_json::from_str::<&RawValue>(text).map_err(|_| StrictJsonError)?;
        parse_value(raw.get(), depth)
    }

    /// Parses the text of a value that `serde_json` parsed as well, and returns whether that lost
    /// nothing. `serde_json` reads most numbers as doubles: `99.99999999999999999` becomes 100.
    #[must_use]
    pub fn is_lossless(text: &str, depth: usize, parsed: &Value) -> bool {
        let exact = Self::parse(text, depth);
        exact.is_ok() && exact == Self::try_from(parsed.clone())
    }

    /// Returns the kind of the value.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Null => ValueKind::Null,
            Self::Bool(_) => ValueKind::Bool,
            Self::Number(_) => ValueKind::Number,
            Self::Text(_) => ValueKind::Text,
            Self::List(_) => ValueKind::List,
            Self::Object(_) => ValueKind::Object,
        }
    }

    /// Returns whether both values are equal when their numbers are read as doubles, as
    /// `4711.0000000000000000000001` and `4711` are.
    #[must_use]
    pub fn is_equal_as_double(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(ours), Self::Number(theirs)) => ours.is_equal_as_double(theirs),
            (Self::List(ours), Self::List(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|(ours, theirs)| ours.is_equal_as_double(theirs))
            }
            (Self::Object(ours), Self::Object(theirs)) => {
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .zip(theirs)
                        .all(|((name, ours), (other, theirs))| name == other && ours.is_equal_as_double(theirs))
            }
            _ => self == other,
        }
    }

    /// Returns the value as a `serde_json` value if every number in it has a canonical form (RFC
    /// 8785 §3.2.2.3): one that survives parsing to a double and serialization.
    #[must_use]
    pub fn to_canonical(&self) -> Option<Value> {
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Number(n) => n.to_canonical()?,
            Self::Text(text) => Value::String(text.clone()),
            Self::List(list) => Value::Array(list.iter().map(Self::to_canonical).collect::<Option<_>>()?),
            Self::Object(object) => {
                let member = |(name, value): (&String, &Self)| Some((name.clone(), value.to_canonical()?));
                Value::Object(object.iter().map(member).collect::<Option<_>>()?)
            }
        })
    }
}

/// Converts a value that Errand wrote. Its numbers are canonical, so the double is exact.
impl TryFrom<Value> for Arg {
    type Error = StrictJsonError;

    fn try_from(value: Value) -> Result<Self, StrictJsonError> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::Number(n) => Self::Number(Decimal::parse(&n.to_string()).ok_or(StrictJsonError)?),
            Value::String(text) => Self::Text(text),
            Value::Array(list) => Self::List(list.into_iter().map(Self::try_from).collect::<Result<_, _>>()?),
            Value::Object(object) => {
                let member = |(name, value)| Ok((name, Self::try_from(value)?));
                Self::Object(object.into_iter().map(member).collect::<Result<_, _>>()?)
            }
        })
    }
}

fn parse_value(text: &str, depth: usize) -> Result<Arg, StrictJsonError> {
    let below = || depth.checked_sub(1).ok_or(StrictJsonError);
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let below = below()?;
            let members =
                serde_json::Deserializer::from_str(text).deserialize_map(UniqueMembers).map_err(|_| StrictJsonError)?;
            let member = |(name, raw): (String, &RawValue)| Ok((name, parse_value(raw.get(), below)?));
            Arg::Object(members.into_iter().map(member).collect::<Result<_, _>>()?)
        }
        Some(b'[') => {
            let below = below()?;
            let items = serde_json::from_str::<Vec<&RawValue>>(text).map_err(|_| StrictJsonError)?;
            Arg::List(items.into_iter().map(|raw| parse_value(raw.get(), below)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Arg::Text(serde_json::from_str(text).map_err(|_| StrictJsonError)?),
        Some(b't') => Arg::Bool(true),
        Some(b'f') => Arg::Bool(false),
        Some(b'n') => Arg::Null,
        _ => Arg::Number(Decimal::parse(text).ok_or(StrictJsonError)?),
    })
}

/// Reads the members of an object and rejects duplicates.
struct UniqueMembers;

impl<'de> Visitor<'de> for UniqueMembers {
    type Value = BTreeMap<String, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
            if members.insert(name, raw).is_some() {
                return Err(de::Error::custom("duplicate member"));
            }
        }
        Ok(members)
    }
}

/// An exact decimal number: `0.DIGITS × 10^exponent`, where the digits have no zeros at either end.
/// Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Parses a JSON number (RFC 8259 §6). Returns `None` if the text is not a number, or its
    /// exponent overflows.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, power) = match rest.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let all = whole.bytes().chain(fraction.bytes()).collect::<Vec<_>>();
        let leading = all.iter().take_while(|b| **b == b'0').count();
        let mut digits = all.into_iter().skip(leading).collect::<Vec<_>>();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let whole_digits = i64::try_from(whole.len()).ok()?.checked_sub(i64::try_from(leading).ok()?)?;
        Some(Self { negative, digits, exponent: power.checked_add(whole_digits)? })
    }

    /// Returns the nearest double, if it is finite.
    fn to_double(&self) -> Option<f64> {
        self.to_string().parse::<f64>().ok().filter(|double| double.is_finite())
    }

    /// Returns the number as an integer, if it is one that `serde_json` has.
    fn to_integer(&self) -> Option<Number> {
        let zeros = usize::try_from(self.exponent).ok()?.checked_sub(self.digits.len()).filter(|zeros| *zeros < 20)?;
        let sign = if self.negative { "-" } else { "" };
        let digits = if self.digits.is_empty() { "0".into() } else { String::from_utf8_lossy(&self.digits) };
        let text = format!("{sign}{digits}{}", "0".repeat(zeros));
        text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
    }

    fn is_equal_as_double(&self, other: &Self) -> bool {
        self == other
            || self
                .to_double()
                .zip(other.to_double())
                .is_some_and(|(ours, theirs)| ours.partial_cmp(&theirs) == Some(Ordering::Equal))
    }

    /// Returns whether the exact value is the one that RFC 8785 §3.2.2.3 writes: that of the
    /// shortest text for the nearest double.
    pub(super) fn has_canonical_form(&self) -> bool {
        // A double in its normal range preserves 15 significant digits.
        let is_preserved = self.digits.len() <= 15 && (-290..=290).contains(&self.exponent);
        is_preserved || self.to_canonical().is_some()
    }

    /// Returns the number as a `serde_json` value, if that loses nothing. An integer stays one, so
    /// that 100 is not displayed as 100.0, up to the largest that `serde_json` has.
    #[must_use]
    fn to_canonical(&self) -> Option<Value> {
        let double = Value::from(self.to_double()?);
        let is_exact = Self::parse(&jcs::to_string(&double)?).as_ref() == Some(self);
        is_exact.then(|| self.to_integer().map_or(double, Value::from))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        let sign = if self.negative { "-" } else { "" };
        write!(f, "{sign}0.{}e{}", String::from_utf8_lossy(&self.digits), self.exponent)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        sign(self).cmp(&sign(other)).then_with(|| {
            // The digits have no leading zero, so the exponent decides, then the digits from the
            // left.
            let size = self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
            if self.negative { size.reverse() } else { size }
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn decimal_comparison_is_exact() {
        for (a, b, want) in [
            ("0", "-0", Ordering::Equal),
            ("0", "0.000e99", Ordering::Equal),
            ("1", "1.000", Ordering::Equal),
            ("1", "10e-1", Ordering::Equal),
            ("100", "1E2", Ordering::Equal),
            ("0.3", "0.30000000000000004", Ordering::Less),
            ("0.1", "0.1000000000000000055511151231257827", Ordering::Less),
            ("9223372036854775807", "9223372036854775808", Ordering::Less),
            ("18446744073709551615", "18446744073709551616", Ordering::Less),
            ("1e400", "1e401", Ordering::Less),
            ("1e-400", "0", Ordering::Greater),
            ("-1e400", "1e-400", Ordering::Less),
            ("-2", "-1", Ordering::Less),
            ("-10", "-9.99", Ordering::Less),
            ("99", "100", Ordering::Less),
            ("9", "89", Ordering::Less),
        ] {
            assert_eq!(number(a).cmp(&number(b)), want, "{a} {b}");
            assert_eq!(number(b).cmp(&number(a)), want.reverse(), "{b} {a}");
        }
        for bad in ["", "-", "+1", ".5", "1e99999999999999999999", "0x10", "1_000", "NaN", "1e", "--1"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn short_number_has_a_canonical_form(digits in 0_u64..10_u64.pow(18), exponent in -330_i32..330) {
            let number = number(&format!("{digits}e{exponent}"));
            prop_assert_eq!(number.has_canonical_form(), number.to_canonical().is_some());
        }
    }

    #[test]
    fn number_that_a_double_loses_has_no_canonical_form() {
        for exact in
            ["0", "-0", "1", "100", "0.1", "1e21", "1.5e300", "9007199254740991", "-7.25", "0.30000000000000004"]
        {
            assert!(number(exact).to_canonical().is_some(), "{exact}");
        }
        for lossy in
            ["1e400", "9223372036854775808", "9007199254740993", "0.1000000000000000055511151231257827", "1e-400"]
        {
            assert!(number(lossy).to_canonical().is_none(), "{lossy}");
        }
    }

    /// Written as sent, also beyond 2⁵³, where `serde_json` writes a double as `…992.0`.
    #[test]
    fn integer_stays_an_integer() {
        for text in [
            "0",
            "-1",
            "100",
            "9007199254740991",
            "9007199254740992",
            "9007199254740994",
            "-9007199254740992",
            "1152921504606847000",
            "1000000000000000000",
            "-9000000000000000000",
            "10000000000000000000",
            "18000000000000000000",
        ] {
            let written = number(text).to_canonical().map(|value| value.to_string());
            assert_eq!(written.as_deref(), Some(text));
        }
        for (text, want) in [("1e2", "100"), ("-0", "0"), ("1.50", "1.5"), ("0e9", "0"), ("12.0e3", "12000")] {
            assert_eq!(number(text).to_canonical().unwrap().to_string(), want, "{text}");
        }
        // No integer of `serde_json`, and an integer that no double equals.
        assert_eq!(number("100000000000000000000").to_canonical().unwrap().to_string(), "1e+20");
        for text in ["9007199254740993", "-9007199254740993", "18446744073709551615", "9223372036854775807"] {
            assert_eq!(number(text).to_canonical(), None, "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_expected() {
        let error = serde_json::Deserializer::from_str("[]").deserialize_map(UniqueMembers).unwrap_err();
        assert!(error.to_string().contains(", expected an object"), "{error}");
    }

    #[test]
    fn lossy_parsing_is_detected() {
        let is_lossless = |text: &str| Arg::is_lossless(text, 8, &serde_json::from_str(text).unwrap());
        for text in [
            "0",
            "-0",
            "1.0",
            "1e2",
            "0.1",
            "0.10",
            "18446744073709551615",
            "-9223372036854775808",
            "9007199254740993",
            "1e300",
            "0.30000000000000004",
            r#"{"a":[1,{"b":2.5}],"c":"\u0041"}"#,
            "null",
            "[]",
        ] {
            assert!(is_lossless(text), "{text}");
        }
        for text in [
            "99.99999999999999999",
            "18446744073709551617",
            "-9223372036854775809",
            "1e-400",
            "0.1000000000000000055511151231257827",
            r#"{"a":[1,{"b":99.99999999999999999}]}"#,
        ] {
            assert!(!is_lossless(text), "{text}");
        }
    }

    #[test]
    fn parse_non_strict_json_is_rejected() {
        assert_eq!(Arg::parse(r#" {"a":[1.0,"x",null,true]} "#, 2).unwrap().kind(), ValueKind::Object);
        for bad in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"\u0062":1}}"#, "[[[1]]]", "{} x", "", "[1,]", "01", "1.", "'a'"]
        {
            assert_eq!(Arg::parse(bad, 2), Err(StrictJsonError), "{bad}");
        }
        assert!(Arg::parse(&"[".repeat(100_000), 8).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Arg::parse(&deep, 8).is_err());
    }

    proptest! {
        #[test]
        fn decimal_order_agrees_with_integer_order(a in any::<i64>(), b in any::<i64>(), zeros in 0usize..4) {
            let text = |n: i64| format!("{n}.{}", "0".repeat(zeros + 1));
            prop_assert_eq!(number(&text(a)).cmp(&number(&b.to_string())), a.cmp(&b));
        }

        #[test]
        fn decimal_display_round_trips(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?") {
            let n = number(&text);
            prop_assert_eq!(&number(&n.to_string()), &n);
            if let Some(Value::Number(canonical)) = n.to_canonical() {
                prop_assert_eq!(number(&canonical.to_string()), n);
            }
        }
    }
}
