//! Kubernetes quantities (`500m`, `4Gi`, `2`): kept as written, compared by value.

use crate::names::InvalidValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const RULE: &str = "use digits with at most one point and one suffix of n u m k M G T P E Ki Mi Gi Ti Pi Ei, as in 500m or 4Gi";

/// An amount of a resource, not negative.
///
/// ```
/// use provisioner::Quantity;
/// let (a, b): (Quantity, Quantity) = ("2".parse()?, "2000m".parse()?);
/// assert_eq!(a, b);
/// assert_eq!(b.to_string(), "2000m");
/// # Ok::<(), provisioner::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

impl Quantity {
    /// The quantity as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its value in billionths, which every quantity that Kubernetes stores is a whole number of.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }
}

fn factor(suffix: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        _ => return None,
    })
}

/// The value in billionths; rounded up like the API server does for finer fractions.
fn nanos(text: &str) -> Result<i128, &'static str> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = factor(suffix).ok_or("has an unknown suffix")?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err("has no digits");
    }
    if whole.len() > 18 || fraction.len() > 9 {
        return Err("has too many digits");
    }
    if fraction.contains('.') {
        return Err("has more than one point");
    }
    let digits: i128 = format!("0{whole}{fraction}")
        .parse()
        .map_err(|_| "is not a number")?;
    let scale = 10_i128.pow(u32::try_from(fraction.len()).map_err(|_| "has too many digits")?);
    let scaled = digits.checked_mul(factor).ok_or("is too large")?;
    Ok((scaled + scale - 1) / scale)
}

impl FromStr for Quantity {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match nanos(text) {
            Ok(nanos) => Ok(Self {
                text: text.to_owned(),
                nanos,
            }),
            Err(problem) => Err(InvalidValue::new("quantity", text, problem, RULE)),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "minimum": 0,
            "pattern": r"^([0-9]{1,18}(\.[0-9]{0,9})?|\.[0-9]{1,9})(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        })
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Takes `cpu: 2` and `cpu: 0.5` as well as `cpu: "2"`, like the API server.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity, as in 500m or 4Gi")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::whole("2", 2_000_000_000)]
    #[case::milli("500m", 500_000_000)]
    #[case::fraction("0.5", 500_000_000)]
    #[case::bare_fraction(".5", 500_000_000)]
    #[case::binary("4Gi", 4_294_967_296_000_000_000)]
    #[case::decimal("1k", 1_000_000_000_000)]
    #[case::finer_than_nano_rounds_up("0.5n", 1)]
    fn values(#[case] text: &str, #[case] nanos: i128) {
        assert_eq!(text.parse::<Quantity>().unwrap().nanos(), nanos);
    }

    #[rstest]
    #[case::equal("2000m", "2", Ordering::Equal)]
    #[case::binary_is_larger("1Gi", "1G", Ordering::Greater)]
    #[case::smaller("999m", "1", Ordering::Less)]
    fn compared_by_value(#[case] a: &str, #[case] b: &str, #[case] order: Ordering) {
        assert_eq!(a.parse::<Quantity>().unwrap().cmp(&b.parse().unwrap()), order);
    }

    #[rstest]
    #[case::empty("")]
    #[case::point(".")]
    #[case::negative("-1")]
    #[case::two_points("1.2.3")]
    #[case::unit("4GB")]
    #[case::space("4 Gi")]
    #[case::newline("4Gi\n")]
    #[case::word("lots")]
    #[case::huge("1234567890123456789Ei")]
    fn refused(#[case] text: &str) {
        assert!(text.parse::<Quantity>().is_err());
    }
}
