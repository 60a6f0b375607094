//! Quantities as operators write them: durations, sizes, signals.
//!
//! The same words are used by the configuration, the control API and the client.

use std::time::Duration;

/// Longest duration that can be written, in seconds: a thousand years.
const MAX_SECONDS: u64 = 1_000 * 365 * 86_400;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("it is empty")]
    Empty,
    #[error("{0:?} is not a number")]
    Number(String),
    #[error("a number of {0:?} is too large")]
    TooLarge(String),
    #[error("{0:?} is not a unit of time; units are ms, s, m, h, d, w")]
    TimeUnit(String),
    #[error("{0:?} is not a unit of size; units are B, KiB, MiB, GiB, TiB")]
    SizeUnit(String),
    #[error("{0:?} is not a signal")]
    Signal(String),
}

/// Splits `12.5ms…` into its digits and its unit; the rest follows the unit.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let unit = rest
        .find(|c: char| c.is_ascii_digit() || c == '.' || c.is_whitespace())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    (number, unit, rest.trim_start())
}

/// Multiplies a decimal number by `scale` in integers, cutting what is smaller than one.
fn scaled(number: &str, scale: u64) -> Result<u64, UnitError> {
    let wrong = || UnitError::Number(number.to_owned());
    let large = || UnitError::TooLarge(number.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| large())?;
    let fraction = &fraction[..fraction.len().min(9)];
    let digits = u32::try_from(fraction.len()).map_err(|_| wrong())?;
    let fraction: u128 = fraction.parse().map_err(|_| wrong())?;
    let part = fraction * u128::from(scale) / 10_u128.pow(digits);
    let total = u128::from(whole) * u128::from(scale) + part;
    u64::try_from(total).map_err(|_| large())
}

/// Reads a duration: `500ms`, `90s`, `5m`, `1h30m`, `1d`; a bare number is seconds.
///
/// # Errors
///
/// A text that is empty, has an unknown unit or no number, or is longer than 1,000 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(UnitError::Empty);
    }
    let bare = rest.bytes().all(|b| b.is_ascii_digit());
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest);
        if number.is_empty() {
            return Err(UnitError::Number(rest.to_owned()));
        }
        let nanos: u64 = match unit {
            "" if bare => 1_000_000_000,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" | "sec" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            other => return Err(UnitError::TimeUnit(other.to_owned())),
        };
        let part = if nanos >= 1_000_000_000 {
            let millis = scaled(number, nanos / 1_000_000)?;
            Duration::from_millis(millis)
        } else {
            Duration::from_nanos(scaled(number, nanos)?)
        };
        total = total.saturating_add(part);
        rest = after;
    }
    if total.as_secs() > MAX_SECONDS {
        return Err(UnitError::TooLarge(text.to_owned()));
    }
    Ok(total)
}

/// Writes a duration so that [`parse_duration`] reads it back, in milliseconds at best: `1h30m`.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    for (unit, size) in units {
        let count = millis / size;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            millis %= size;
        }
    }
    out
}

/// Reads a size in bytes: `10MiB`, `10MB`, `10M` and `10m` are all 10 × 2^20; a bare number is
/// bytes.
///
/// # Errors
///
/// A text that is empty, has an unknown unit or no number, or does not fit 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let (number, unit, rest) = number_and_unit(text);
    if number.is_empty() || !rest.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(UnitError::SizeUnit(unit.to_owned())),
    };
    scaled(number, 1 << shift)
}

/// Reads a signal: `TERM`, `SIGTERM`, `term`, `RTMIN+3` or a number from 1 to 64.
///
/// # Errors
///
/// A text that names no signal of this system.
pub fn parse_signal(text: &str) -> Result<i32, UnitError> {
    let wrong = || UnitError::Signal(text.to_owned());
    let upper = text.trim().to_ascii_uppercase();
    if upper.starts_with(|c: char| c.is_ascii_digit()) {
        let number = upper.parse().map_err(|_| wrong())?;
        return (1..=64).contains(&number).then_some(number).ok_or_else(wrong);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = match offset.strip_prefix('+') {
            None if offset.is_empty() => 0,
            None => return Err(wrong()),
            Some(number) => number.parse().map_err(|_| wrong())?,
        };
        let number = libc::SIGRTMIN().checked_add(offset).ok_or_else(wrong)?;
        return (offset >= 0 && number <= libc::SIGRTMAX()).then_some(number).ok_or_else(wrong);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|s| s as i32).map_err(|_| wrong())
}

/// Returns a signal's name, `SIGTERM`, `SIGRTMIN+3` or, for what has none, `signal 77`.
pub fn signal_name(signal: i32) -> String {
    if let Ok(known) = nix::sys::signal::Signal::try_from(signal) {
        return known.as_str().to_owned();
    }
    match signal - libc::SIGRTMIN() {
        0 => "SIGRTMIN".to_owned(),
        offset if offset > 0 && signal <= libc::SIGRTMAX() => format!("SIGRTMIN+{offset}"),
        _ => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_operators_write_them() {
        for (text, millis) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1.5s", 1_500),
            ("10", 10_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn durations_that_could_be_misread_are_refused() {
        for text in ["", "s", "5x", "-5s", "1h30", "1.2.3s", "1.5", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn sizes_are_binary_whatever_the_spelling() {
        for text in ["10MiB", "10MB", "10M", "10m", "10 MiB", "10485760"] {
            assert_eq!(parse_size(text), Ok(10 << 20), "{text}");
        }
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        for text in ["", "MiB", "10Q", "-1", "1M1", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(parse_signal(text), Ok(15), "{text}");
        }
        assert_eq!(parse_signal("RTMIN+2"), Ok(libc::SIGRTMIN() + 2));
        for text in ["", "0", "65", "NOPE", "RTMIN+99", "RTMIN-1", "SIGSIGTERM"] {
            assert!(parse_signal(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn every_signal_name_reads_back() {
        for signal in (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            assert_eq!(parse_signal(&signal_name(signal)), Ok(signal));
        }
    }

    proptest! {
        #[test]
        fn a_formatted_duration_reads_back(millis in 0_u64..10_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics_a_parser(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = parse_signal(&text);
        }
    }
}
