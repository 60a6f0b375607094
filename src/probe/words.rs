//! The words of the sentences that probes say: sizes, shares, errors of the system, lines.

use std::io;

/// Most characters of a foreign line in a sentence.
const MAX_CHARS: usize = 200;

/// Says what an error of the system means, without its number.
pub(super) fn error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // A word in capitals is a name.
        Some(_) if letters.as_str().starts_with(|c: char| c.is_uppercase()) => text.to_owned(),
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "failed".to_owned(),
    }
}

/// Writes a size as a person would: `812 MiB`, `1.5 GiB`.
#[expect(clippy::cast_precision_loss, reason = "a tenth of a unit is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let value = bytes as f64 / (1_u64 << shift) as f64;
    if value < 10.0 && (value * 10.0).round() % 10.0 != 0.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Writes a percentage: with a decimal where it is small and not whole.
pub(super) fn percent(value: f64) -> String {
    if value < 10.0 && (value * 10.0).round() % 10.0 != 0.0 {
        format!("{value:.1} %")
    } else {
        format!("{value:.0} %")
    }
}

/// Returns what share `part` is of `whole`, in percent.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Writes how long until or since a date: `6 days`, `4 h 10 min`.
pub(super) fn days(seconds: u64) -> String {
    match seconds / 86_400 {
        0 => crate::core::text::duration(std::time::Duration::from_secs(seconds)),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Returns the first line with anything in it, as people may read it.
pub(super) fn first_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(shown)
}

/// Returns the last line with anything in it, as people may read it.
pub(super) fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(shown)
}

/// Makes foreign text fit for a sentence: one line of limited length, no control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_quoted_without_its_numbers() {
        assert_eq!(error(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), "connection refused");
        assert_eq!(error(&io::Error::other("TLS is needed")), "TLS is needed");
    }

    #[test]
    fn a_line_is_one_line_and_not_too_long() {
        assert_eq!(last_line(b"one\ntwo\x1b[1m\n\n").as_deref(), Some("two [1m"));
        assert_eq!(first_line(b"\n \none\ntwo\n").as_deref(), Some("one"));
        assert_eq!((first_line(b" \n"), last_line(b" \n")), (None, None));
        assert_eq!(last_line(&[b'x'; 5000]).unwrap().len(), 200);
    }

    #[test]
    fn sizes_shares_and_times_read_as_a_person_would_say_them() {
        let sizes = [0, 1023, 1024, 812 << 20, 3 << 29, 10 << 30, 1 << 40];
        let texts = ["0 B", "1023 B", "1 KiB", "812 MiB", "1.5 GiB", "10 GiB", "1 TiB"];
        assert_eq!(sizes.map(bytes), texts);
        assert_eq!([0.0, 0.42, 9.0, 79.6].map(percent), ["0 %", "0.4 %", "9 %", "80 %"]);
        assert_eq!((share(1, 4), share(1, 0)), (25.0, 0.0));
        assert_eq!([600, 86_400, 172_800].map(days), ["10 min", "1 day", "2 days"]);
    }
}
