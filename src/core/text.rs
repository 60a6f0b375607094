//! The words of the core's sentences: times, signals, exits.

use std::time::Duration;

use crate::core::{Actor, Exit};

/// Writes a duration as a person would: `800 ms`, `4.2 s`, `2 min`, `1 h 30 min`.
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    if millis < 1_000 {
        return format!("{millis} ms");
    }
    if seconds < 60 {
        let tenths = millis / 100;
        return match tenths % 10 {
            0 => format!("{} s", tenths / 10),
            rest => format!("{}.{rest} s", tenths / 10),
        };
    }
    let (large, small, names) = match seconds {
        0..3_600 => (seconds / 60, seconds % 60, ("min", "s")),
        _ => (seconds / 3_600, seconds % 3_600 / 60, ("h", "min")),
    };
    match small {
        0 => format!("{large} {}", names.0),
        _ => format!("{large} {} {small} {}", names.0, names.1),
    }
}

/// Names a signal as `kill -l` does, or by its number.
pub fn signal(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let index = usize::try_from(signal).ok().and_then(|number| number.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

/// Says how a run ended: `exited with code 3`, `killed by SIGSEGV (core dumped)`.
pub fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal { signal: number, core_dumped: false } => {
            format!("killed by {}", signal(number))
        }
        Exit::Signal { signal: number, core_dumped: true } => {
            format!("killed by {} (core dumped)", signal(number))
        }
        Exit::Unknown => "ended while nobody could see its exit status".to_owned(),
    }
}

/// Says who, and why if that is known: `alice: maintenance`.
pub fn actor(actor: &Actor) -> String {
    match &actor.reason {
        Some(reason) => format!("{}: {reason}", actor.name),
        None => actor.name.clone(),
    }
}

/// Writes `1st`, `2nd`, `3rd`, `4th`, `11th`.
pub fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_would_say_them() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (4_200, "4.2 s"),
            (12_000, "12 s"),
            (120_000, "2 min"),
            (125_000, "2 min 5 s"),
            (5_400_000, "1 h 30 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn signals_and_ordinals_have_their_usual_names() {
        assert_eq!(
            (signal(15), signal(9), signal(34)),
            ("SIGTERM".into(), "SIGKILL".into(), "signal 34".into())
        );
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 13, 21].map(ordinal),
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st"]
        );
    }
}
