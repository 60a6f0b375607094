//! What a request says, checked: query parameters, bodies, durations, signals, times.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use nix::sys::signal::Signal;

use super::problem::Fault;
use super::view::{ActBody, ApplyBody, LogLevelBody, UpgradeBody};
use crate::time::Wall;

/// Largest request body.
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest `reason`: it goes into every status and event of the processes concerned.
const MAX_REASON_BYTES: usize = 1024;

/// Names a request, so that sending it again does nothing twice.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest `wait`: longer jobs are watched through the events.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// The parameters of a query, in order; each one is known to the route.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Splits the query of `uri`.
    ///
    /// A parameter outside `known`, or one but `name` that comes twice, is a fault.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Fault> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Fault::parameter("query", error))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Fault::unknown_parameter(name, known));
            }
            if name != "name" && pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Fault::parameter(name, "it is given twice"));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns every `name`, none of them empty.
    pub(super) fn names(&self) -> Result<Vec<String>, Fault> {
        let names: Vec<String> = self
            .0
            .iter()
            .filter(|(known, _)| known == "name")
            .map(|(_, value)| value.clone())
            .collect();
        check_names("name", &names)?;
        Ok(names)
    }

    /// Reads a switch: `1`, `true` or no value at all set it, `0` and `false` do not.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(other) => Err(Fault::parameter(name, format!("`{other}` is neither 1 nor 0"))),
        }
    }
}

/// The details of an act, from the query or from the body.
#[derive(Debug)]
pub(super) struct ActOptions {
    pub(super) wait: Option<Duration>,
    pub(super) signal: Option<i32>,
    pub(super) reason: Option<String>,
    /// With enabling and disabling: start or stop too.
    pub(super) now: bool,
    /// What makes a second request of the same key wait for the first.
    pub(super) key: Option<String>,
}

impl ActOptions {
    pub(super) fn read(
        wait: Option<&str>,
        signal: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            wait: wait.map(read_wait).transpose()?,
            signal: signal.map(read_signal).transpose()?,
            reason: reason.map(read_reason).transpose()?,
            now: false,
            key: None,
        })
    }
}

/// Reads `Idempotency-Key`.
pub(super) fn read_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match value.to_str() {
        Ok(key) if (1..=64).contains(&key.len()) && key.as_bytes().iter().all(is_plain) => {
            Ok(Some(key.to_owned()))
        }
        _ => {
            let why = "it has 1 to 64 letters, digits, `-`, `_` and `.`";
            Err(Fault::parameter("Idempotency-Key", why))
        }
    }
}

pub(super) fn read_wait(text: &str) -> Result<Duration, Fault> {
    let wait = parse_duration(text).map_err(|why| Fault::parameter("wait", why))?;
    if wait > MAX_WAIT {
        return Err(Fault::parameter("wait", "at most 24h"));
    }
    Ok(wait)
}

fn read_signal(text: &str) -> Result<i32, Fault> {
    parse_signal(text).ok_or_else(|| {
        Fault::parameter("signal", format!("`{text}` is no signal; write `HUP`, `SIGHUP` or `1`"))
    })
}

pub(super) fn read_reason(text: &str) -> Result<String, Fault> {
    if text.len() > MAX_REASON_BYTES {
        return Err(Fault::parameter("reason", format!("at most {MAX_REASON_BYTES} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::parameter("reason", "control characters are not allowed"));
    }
    Ok(text.to_owned())
}

pub(super) fn check_names(parameter: &str, names: &[String]) -> Result<(), Fault> {
    if names.iter().any(String::is_empty) {
        return Err(Fault::parameter(parameter, "a name may not be empty"));
    }
    Ok(())
}

/// Reads a signal by name, with or without `SIG`, in any case, or by number.
fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        let number = libc::SIGRTMIN().checked_add(offset.parse().ok()?)?;
        return (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

/// Reads a duration such as `500ms`, `10s`, `1m30s`, `2h` or `1d`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write for example `500ms`, `10s` or `1m30s`");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let tail = &rest[digits..];
        let unit_length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let unit = match &tail[..unit_length] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        let part = unit.checked_mul(number).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &tail[unit_length..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Reads a point in time: RFC 3339, or a duration that reaches back from `now`.
pub(super) fn parse_time(parameter: &str, text: &str, now: Wall) -> Result<Wall, Fault> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Wall(at.as_millisecond()));
    }
    let back = parse_duration(text).map_err(|_| {
        Fault::parameter(
            parameter,
            format!("`{text}` is neither a duration such as `10m` nor a time such as `2026-11-23T11:52:07Z`"),
        )
    })?;
    Ok(Wall(now.0.saturating_sub(i64::try_from(back.as_millis()).unwrap_or(i64::MAX))))
}

/// Reads the civil clock.
pub(super) fn wall_now() -> Wall {
    Wall(Timestamp::now().as_millisecond())
}

/// Reads the whole body, up to [`MAX_BODY_BYTES`] within [`BODY_TIMEOUT`].
pub(super) async fn read_body(body: Body) -> Result<Vec<u8>, Fault> {
    let limited = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Fault::body_too_large(MAX_BODY_BYTES))
        }
        Ok(Err(_)) => Err(Fault::body_broken()),
        Err(_) => Err(Fault::body_too_slow()),
    }
}

pub(super) async fn read_act_body(body: Body) -> Result<ActBody, Fault> {
    let bytes = read_body(body).await?;
    let act: ActBody = serde_json::from_slice(&bytes).map_err(|error| Fault::body(&error))?;
    if act.names.is_empty() {
        return Err(Fault::parameter("names", "it names nothing; write [\"all\"] for everything"));
    }
    check_names("names", &act.names)?;
    Ok(act)
}

pub(super) async fn read_log_level_body(body: Body) -> Result<LogLevelBody, Fault> {
    let bytes = read_body(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Fault::body(&error))
}

/// Reads what to upgrade to; no body at all means the usual.
pub(super) async fn read_upgrade_body(body: Body) -> Result<UpgradeBody, Fault> {
    let bytes = read_body(body).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(UpgradeBody::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| Fault::body(&error))
}

/// Reads what to apply and how; no body at all means the files, as usual.
pub(super) async fn read_apply_body(body: Body) -> Result<ApplyBody, Fault> {
    let bytes = read_body(body).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(ApplyBody::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| Fault::body(&error))
}

/// Makes sure that a request which takes no body has none.
pub(super) async fn no_body(body: Body) -> Result<(), Fault> {
    if read_body(body).await?.iter().all(u8::is_ascii_whitespace) {
        Ok(())
    } else {
        Err(Fault::unexpected_body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("7", 7_000), ("1m30s", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "10x", "1.5s", "-1s", "10s5", "99999999999s", "1d "] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn signals_are_read_by_name_and_number() {
        for text in ["HUP", "SIGHUP", "hup", "1"] {
            assert_eq!(parse_signal(text), Some(libc::SIGHUP), "{text}");
        }
        assert_eq!(parse_signal("RTMIN+1"), Some(libc::SIGRTMIN() + 1));
        for text in ["", "0", "-9", "65", "NOPE", "SIGSIGHUP", "RTMIN+99"] {
            assert_eq!(parse_signal(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_is_absolute_or_reaches_back() {
        let now = Wall(1_000_000);
        assert_eq!(parse_time("since", "10s", now).unwrap(), Wall(990_000));
        assert_eq!(parse_time("since", "1970-01-01T00:00:05Z", now).unwrap(), Wall(5_000));
        assert!(parse_time("since", "yesterday", now).is_err());
    }

    #[test]
    fn a_query_names_its_mistakes() {
        let read = |query: &str| {
            let uri: Uri = format!("/v1/logs?{query}").parse().unwrap();
            Parameters::read(&uri, &["name", "lines"]).map_err(|fault| fault.detail().to_owned())
        };
        let good = read("name=a&name=b%3A0&lines=3").unwrap();
        assert_eq!(good.names().unwrap(), ["a", "b:0"]);
        assert_eq!(good.get("lines"), Some("3"));
        assert_eq!(read("line=3").unwrap_err(), "`line`: this route has no such parameter");
        assert_eq!(read("lines=3&lines=4").unwrap_err(), "`lines`: it is given twice");
        assert!(read("name=").unwrap().names().is_err());
    }
}
