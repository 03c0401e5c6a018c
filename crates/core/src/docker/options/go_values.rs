//! Numbers as docker's command line writes them: Go's integers and durations, sizes with a unit, fractions
//! of a CPU.

use std::num::IntErrorKind;

/// An integer, as Go's `strconv.ParseInt(text, 0, 64)` reads it: `0x`, `0o`, `0b`, a leading zero for
/// octal, and underscores between digits.
pub(in crate::docker) fn integer(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = i128::from(unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| "is too large".to_owned())
}

/// An integer without a sign, as Go's `strconv.ParseUint(text, 0, 64)` reads it.
pub(in crate::docker) fn unsigned(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)),
        [b'0', b'o', ..] => (8, lower.get(2..)),
        [b'0', b'b', ..] => (2, lower.get(2..)),
        [b'0', _, ..] => (8, lower.get(1..)),
        _ => (10, Some(lower.as_str())),
    };
    let digits = digits.unwrap_or_default();
    // An underscore may follow the prefix, and must precede a digit.
    let digits = if radix == 10 {
        digits
    } else {
        digits.strip_prefix('_').unwrap_or(digits)
    };
    if digits.split('_').any(str::is_empty) {
        return Err("is not a whole number".to_owned());
    }
    parse_unsigned(&digits.replace('_', ""), radix)
}

/// An integer without a sign, in decimal digits only.
pub(in crate::docker) fn decimal_unsigned(text: &str) -> Result<u64, String> {
    parse_unsigned(text, 10)
}

/// An integer in decimal digits with an optional sign.
pub(in crate::docker) fn decimal_integer(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|error: std::num::ParseIntError| whole_number(error.kind()))
}

fn parse_unsigned(digits: &str, radix: u32) -> Result<u64, String> {
    // Rust allows a sign here, Go does not.
    if digits.starts_with(['+', '-']) {
        return Err("is not a whole number".to_owned());
    }
    u64::from_str_radix(digits, radix).map_err(|error| whole_number(error.kind()))
}

fn whole_number(kind: &IntErrorKind) -> String {
    match kind {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "is too large",
        _ => "is not a whole number",
    }
    .to_owned()
}

/// A size in bytes, with a unit of 1024 if one is given: `64m`, `1.5GiB`, `5 kb` (go-units' `RAMInBytes`).
pub(in crate::docker) fn size(text: &str) -> Result<i64, String> {
    const REASON: &str = "is not a size, such as 512m or 1.5g";
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or(REASON)?;
    let (number, suffix) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value: f64 = number.parse().map_err(|_| REASON)?;
    let suffix = suffix.to_ascii_lowercase();
    let unit = suffix
        .strip_suffix("ib")
        .or_else(|| suffix.strip_suffix('b'))
        .unwrap_or(&suffix);
    let factor = match unit {
        // `ib` alone lacks the letter of the unit.
        "" if suffix != "ib" => 1_u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(REASON.to_owned()),
    };
    if value.is_sign_negative() && value != 0.0 {
        return Err("is negative".to_owned());
    }
    let bytes = value * factor as f64;
    // The first size that an i64 can't hold is exactly a power of two, so the comparison is exact.
    if bytes >= i64::MAX as f64 {
        return Err("is too large".to_owned());
    }
    Ok(bytes as i64)
}

/// A size, or -1 for no limit.
pub(in crate::docker) fn size_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// CPUs in billionths: `1.5`, `3/2`, `5e-1`.
pub(in crate::docker) fn nano_cpus(text: &str) -> Result<i64, String> {
    const NANO: i128 = 1_000_000_000;
    let (numerator, denominator) = match text.split_once('/') {
        Some((numerator, denominator)) => (i128::from(integer(numerator)?), i128::from(unsigned(denominator)?)),
        None if text
            .trim_start_matches(['+', '-'])
            .to_ascii_lowercase()
            .starts_with("0x") =>
        {
            (i128::from(integer(text)?), 1)
        }
        None => decimal_fraction(text).ok_or("is not a number of CPUs, such as 1.5")?,
    };
    if denominator == 0 {
        return Err("divides by zero".to_owned());
    }
    let nano = numerator.checked_mul(NANO).ok_or("is too large")?;
    if nano % denominator != 0 {
        return Err("is too precise: a billionth of a CPU is the least".to_owned());
    }
    i64::try_from(nano / denominator).map_err(|_| "is too large".to_owned())
}

/// A decimal number as numerator and denominator, where both are of a reasonable size.
fn decimal_fraction(text: &str) -> Option<(i128, i128)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}").replace('_', "");
    let numerator: i128 = digits.parse().ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.replace('_', "").len()).ok()?)?;
    let power = 10_i128.checked_pow(scale.unsigned_abs())?;
    if scale < 0 {
        Some((numerator, power))
    } else {
        Some((numerator.checked_mul(power)?, 1))
    }
}

/// A duration in nanoseconds, as Go's `time.ParseDuration` reads it: `1m30s`, `1.5h`, `0`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    const REASON: &str = "is not a duration, such as 30s or 1m30s";
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(REASON.to_owned());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(REASON)?);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanoseconds: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(REASON.to_owned()),
        };
        total = scaled(number, nanoseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or(REASON)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| "is too long".to_owned())
}

/// `number` (digits with at most one point) times `unit`, with the fraction cut off.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits too small for any unit are dropped, so that the product stays small.
    let fraction: String = fraction.chars().take(18).collect();
    let power = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_gos() {
        for (text, value) in [
            ("5", 5),
            ("-5", -5),
            ("+5", 5),
            ("0x10", 16),
            ("010", 8),
            ("0o17", 15),
            ("0b11", 3),
            ("1_000", 1000),
            ("0x_f", 15),
            ("0", 0),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text).unwrap(), value, "{text}");
        }
        for text in [
            "",
            "-",
            "1e3",
            "5k",
            "_1",
            "1_",
            "1__0",
            "09",
            "9223372036854775808",
            "--5",
            "0x",
            "5 ",
        ] {
            assert!(integer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_go_units() {
        for (text, value) in [
            ("5", 5),
            ("5b", 5),
            ("1k", 1024),
            ("1KB", 1024),
            ("1kib", 1024),
            ("1.5g", 1_610_612_736),
            (".5k", 512),
            ("5.", 5),
            ("5 k", 5120),
            ("1e3", 1000),
            ("0", 0),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text).unwrap(), value, "{text}");
        }
        for text in [
            "", "5x", "-5", "k", "5ib", "5kk", "5kbi", "5  k", " ", "9999999p", "-1", "0x10", "5bb",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_or_unlimited("-1").unwrap(), -1);
    }

    #[test]
    fn cpus_are_rational() {
        for (text, value) in [
            ("1.5", 1_500_000_000),
            ("3/2", 1_500_000_000),
            ("1e-3", 1_000_000),
            (".5", 500_000_000),
            ("-1", -1_000_000_000),
            ("0x10", 16_000_000_000),
            ("2.", 2_000_000_000),
        ] {
            assert_eq!(nano_cpus(text).unwrap(), value, "{text}");
        }
        for text in [
            "",
            ".",
            "x",
            "1/3",
            "1/0",
            "0.0000000001",
            "1e99",
            "1e-99",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, value) in [
            ("0", 0),
            ("1s", 1_000_000_000),
            ("1m30s", 90_000_000_000),
            (".5s", 500_000_000),
            ("-1ms", -1_000_000),
            ("1h2us3ns", 3_600_000_002_003),
            ("1.5µs", 1500),
        ] {
            assert_eq!(duration(text).unwrap(), value, "{text}");
        }
        for text in ["", "5", "1d", "s", ".s", "1.2.3s", "-", "9999999h", "1s5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
