//! Exact decimal numbers. What people write in decimals is judged in decimals: 1.08 is no binary fraction.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Most significant digits of a number: what is scaled by a unit still fits 128 bits.
pub const DIGITS_MAX: usize = 30;
/// Powers of ten that 128 bits hold.
const POWER_MAX: u32 = 38;
/// An exponent beyond this is that of no quantity; sums of a few of them still fit 32 bits.
const EXPONENT_MAX: i32 = 1 << 20;

/// `mantissa * 10^exponent`, without zeros at the end of the mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i128,
    exponent: i32,
}

/// Why a text is not a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    NotANumber,
    /// More than [`DIGITS_MAX`] significant digits.
    TooManyDigits,
}

impl Decimal {
    fn new(mut mantissa: i128, mut exponent: i32) -> Self {
        if mantissa == 0 {
            return Decimal { mantissa: 0, exponent: 0 };
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        Decimal { mantissa, exponent }
    }

    /// This number times `factor * 10^power`; nothing where that does not fit.
    pub fn scaled(self, factor: i128, power: i32) -> Option<Self> {
        Some(Self::new(self.mantissa.checked_mul(factor)?, self.exponent.checked_add(power)?))
    }

    /// The number, if it is a whole one (and fits).
    pub fn whole(self) -> Option<i128> {
        let power = ten_to(u32::try_from(self.exponent).ok()?)?;
        self.mantissa.checked_mul(power)
    }

    /// The nearest whole number, halves away from zero; what does not fit is the largest one of its sign.
    pub fn rounded(self) -> i128 {
        if self.exponent >= 0 {
            let limit = if self.mantissa < 0 { i128::MIN } else { i128::MAX };
            return self.whole().unwrap_or(limit);
        }
        // A mantissa is below 10^38, so what is divided by more is nothing.
        let Some(divisor) = ten_to(self.exponent.unsigned_abs()) else { return 0 };
        let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
        if rest.abs() >= divisor - rest.abs() { quotient + rest.signum() } else { quotient }
    }

    /// The difference of two numbers, where it fits.
    pub fn minus(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: Decimal| {
            let power = number.exponent.checked_sub(exponent).and_then(|power| u32::try_from(power).ok())?;
            number.mantissa.checked_mul(ten_to(power)?)
        };
        Some(Self::new(aligned(self)?.checked_sub(aligned(other)?)?, exponent))
    }

    pub fn abs(self) -> Self {
        // A mantissa is far from the smallest number of its type.
        Decimal { mantissa: self.mantissa.saturating_abs(), ..self }
    }

    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    fn digits(self) -> String {
        self.mantissa.unsigned_abs().to_string()
    }

    /// Power of ten of the first digit.
    fn magnitude(self) -> i32 {
        self.exponent + self.digits().len() as i32 - 1
    }
}

fn ten_to(power: u32) -> Option<i128> {
    (power <= POWER_MAX).then(|| 10i128.pow(power))
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self::new(number.into(), 0)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs != Ordering::Equal || self.mantissa == 0 {
            return signs;
        }
        let (a, b) = (self.abs(), other.abs());
        // Of one magnitude, digits from the first on decide.
        let larger = a.magnitude().cmp(&b.magnitude()).then_with(|| {
            let (a, b) = (a.digits(), b.digits());
            a.as_bytes().cmp(b.as_bytes())
        });
        if self.is_negative() { larger.reverse() } else { larger }
    }
}

/// Digits, a point between digits, an exponent; the whole text.
impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (number, power) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return Err(DecimalError::NotANumber),
            Some(parts) => parts,
            None => (number, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return Err(DecimalError::NotANumber);
        }
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0').trim_end_matches('0');
        if significant.len() > DIGITS_MAX {
            return Err(DecimalError::TooManyDigits);
        }
        if significant.is_empty() {
            return Ok(Self::new(0, 0));
        }
        let behind = digits.len() - digits.trim_end_matches('0').len();
        let shift = i32::try_from(behind).ok().zip(i32::try_from(fraction.len()).ok());
        let exponent = shift.map(|(behind, fraction)| power + behind - fraction).ok_or(DecimalError::NotANumber)?;
        let mantissa: i128 = significant.parse().map_err(|_| DecimalError::NotANumber)?;
        Ok(Self::new(if negative { -mantissa } else { mantissa }, exponent))
    }
}

/// The number behind the `e`; what is out of all range is the end of it.
fn exponent(text: &str) -> Result<i32, DecimalError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotANumber);
    }
    let size = digits.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Ok(if negative { -size } else { size })
}

/// Every digit; with an exponent where a person would write one.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.is_negative() {
            f.write_str("-")?;
        }
        let (digits, magnitude) = (self.digits(), self.magnitude());
        match magnitude {
            -4..0 => write!(f, "0.{}{digits}", "0".repeat((-magnitude - 1) as usize)),
            0..7 => {
                let whole = magnitude as usize + 1;
                match digits.len().checked_sub(whole) {
                    None | Some(0) => write!(f, "{digits}{}", "0".repeat(whole - digits.len())),
                    Some(_) => write!(f, "{}.{}", &digits[..whole], &digits[whole..]),
                }
            }
            _ if digits.len() == 1 => write!(f, "{digits}e{magnitude}"),
            _ => write!(f, "{}.{}e{magnitude}", &digits[..1], &digits[1..]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_number_is_read_to_the_last_digit() {
        assert_eq!(decimal("1.080"), Decimal { mantissa: 108, exponent: -2 });
        assert_eq!(decimal("-0012e2"), Decimal { mantissa: -12, exponent: 2 });
        assert_eq!(decimal("100"), Decimal { mantissa: 1, exponent: 2 });
        assert_eq!(decimal("0.000"), Decimal { mantissa: 0, exponent: 0 });
        assert_eq!(decimal("0e99999999999999999999"), decimal("0"));
        assert_eq!("0.1234567890123456789012345678901".parse::<Decimal>(), Err(DecimalError::TooManyDigits));
        for text in ["", "-", ".5", "5.", "1e", "1e+", "0x1", "1_000", "inf", "1.2.3", "1e2e3", " 1", "--1"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError::NotANumber), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_told_from_others() {
        assert_eq!(decimal("1.08").scaled(1, 12).unwrap().whole(), Some(1_080_000_000_000));
        assert_eq!(decimal("0.0000000000005").scaled(1, 12).unwrap().whole(), None);
        assert_eq!(decimal("1e30").scaled(36, 14).unwrap().whole(), None);
        assert_eq!(decimal("-3e2").whole(), Some(-300));
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (text, rounded) in [("0.5", 1), ("-0.5", -1), ("0.49999", 0), ("2.5", 3), ("1e-99", 0), ("-7.2", -7)] {
            assert_eq!(decimal(text).rounded(), rounded, "{text}");
        }
        assert_eq!(decimal("-1e300").rounded(), i128::MIN);
    }

    proptest! {
        #[test]
        fn order_difference_and_text_are_those_of_whole_numbers(
            a in -1_000_000_000_000_000i64..1_000_000_000_000_000, b in -1_000_000i64..1_000_000, power in -20i32..20,
        ) {
            let [x, y] = [a, b].map(|number| Decimal::from(number).scaled(1, power).unwrap());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.minus(y).unwrap(), Decimal::from(a - b).scaled(1, power).unwrap());
            prop_assert_eq!(decimal(&x.to_string()), x);
        }

        /// What was written until now stays as it was written.
        #[test]
        fn a_text_of_up_to_fifteen_digits_is_that_of_a_float(mantissa in 1u64..1_000_000_000_000_000, power in -25i32..10) {
            let number: f64 = format!("{mantissa}e{power}").parse().unwrap();
            let plain = (1e-4..1e7).contains(&number);
            let expected = if plain { number.to_string() } else { format!("{number:e}") };
            prop_assert_eq!(decimal(&format!("{mantissa}e{power}")).to_string(), expected);
        }
    }
}
