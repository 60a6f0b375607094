//! Times and durations as people write and read them.

use std::time::Duration;

use jiff::Timestamp;

use super::failure::Failure;

/// Reads `500ms`, `90s`, `5m`, `1h30m`, `2d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration such as 500ms, 90s, 5m or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "" if number.to_string().len() == text.trim().len() => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        let part = number.checked_mul(millis).ok_or_else(bad)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(total)
}

/// Reads a duration before now, or an RFC 3339 time.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago = parse_duration(text)
        .map_err(|_| format!("`{text}` is neither a duration such as 10m nor an RFC 3339 time"))?;
    now.checked_sub(ago).map_err(|_| format!("`{text}` is too long ago"))
}

/// Reads `--since` and `--until`; returns them as parameters of a query.
pub fn since_and_until(
    since: Option<&str>,
    until: Option<&str>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let now = Timestamp::now();
    let read = |(name, text): (&'static str, Option<&str>)| {
        let moment = parse_moment(text?, now).map_err(Failure::Usage);
        Some(moment.map(|moment| (name, moment.to_string())))
    };
    [("since", since), ("until", until)].into_iter().filter_map(read).collect()
}

/// Writes a duration so that the server and [`parse_duration`] read it back, to the millisecond.
pub fn exact(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// Writes at most two units: `12s`, `3m 5s`, `1h 2m`, `3d 4h`.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit} {small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(minutes, "m", seconds % 60, "s"),
        3_600..86_400 => two(hours, "h", minutes % 60, "m"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// Writes seconds as [`short`] does, and less than one in milliseconds.
pub fn span(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span < Duration::from_secs(1) => format!("{}ms", span.as_millis()),
        Ok(span) => short(span),
        Err(_) => String::new(),
    }
}

/// Returns how long before `now` the RFC 3339 time `text` was; zero when it is still to come.
pub fn since(text: &str, now: Timestamp) -> Option<Duration> {
    let moment: Timestamp = text.parse().ok()?;
    Some(Duration::try_from(now.duration_since(moment)).unwrap_or(Duration::ZERO))
}

/// Returns how long after `now` the RFC 3339 time `text` is; zero when it has passed.
pub fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let moment: Timestamp = text.parse().ok()?;
    Some(Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Writes `just now` or `3m 5s ago`; a text that is no time is returned as it is.
pub fn ago(text: &str, now: Timestamp) -> String {
    match since(text, now) {
        None => text.to_owned(),
        Some(passed) if passed < Duration::from_secs(1) => "just now".to_owned(),
        Some(passed) => format!("{} ago", short(passed)),
    }
}

/// Writes the local time of day, `14:03:59`; a text that is no time is returned as it is.
pub fn clock(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Err(_) => text.to_owned(),
        Ok(moment) => {
            moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
        }
    }
}

/// Writes the local date and time of day; a text that is no time is returned as it is.
pub fn date_and_clock(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Err(_) => text.to_owned(),
        Ok(moment) => {
            moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %H:%M:%S").to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn durations_are_read_with_units_or_as_seconds() {
        let cases = [("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("500ms", 500)];
        for (text, millis) in cases {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_duration(&exact(duration)).unwrap(), duration);
        }
        assert_eq!(parse_duration("20").unwrap(), Duration::from_secs(20));
        for text in ["", "m", "5x", "-3s", "1h30", "99999999999999999999s", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_so_long_ago() {
        let now = at("2026-11-23T12:00:00Z");
        assert_eq!(parse_moment("10m", now).unwrap(), at("2026-11-23T11:50:00Z"));
        assert_eq!(
            parse_moment("2026-11-23T12:00:00+01:00", now).unwrap(),
            at("2026-11-23T11:00:00Z")
        );
        assert!(parse_moment("yesterday", now).is_err());
    }

    #[test]
    fn spans_have_at_most_two_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (185, "3m 5s"),
            (3_720, "1h 2m"),
            (86_400, "1d"),
            (273_600, "3d 4h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_shows_no_negative_time() {
        let now = at("2026-11-23T12:00:00Z");
        assert_eq!(ago("2026-11-23T12:00:05Z", now), "just now");
        assert_eq!(ago("2026-11-23T11:57:00Z", now), "3m ago");
        assert_eq!(until("2026-11-23T11:57:00Z", now), Some(Duration::ZERO));
    }
}
