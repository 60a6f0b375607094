//! What an exit that nobody asked for means: restart, leave it, or give up.
//!
//! | exit | `always` | `on-failure` | `never` |
//! |---|---|---|---|
//! | listed in `permanent_exit_codes` | FATAL | FATAL | FATAL |
//! | success code, counted as running | restart | EXITED | EXITED |
//! | success code, before the start period | failed start | EXITED | EXITED |
//! | any other code, a signal, unknown | restart | restart | EXITED |
//!
//! A start under `always` that ends early has failed even with code 0, as supervisord's
//! `startsecs` says. Under the other policies a quick success is what a one-shot job does, so
//! it is no failure. An unknown exit is a failure, but never a reason to give up.

use crate::config::{Lifecycle, RestartPolicy};
use crate::core::Exit;

/// The consequence of an unexpected exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Restart,
    Leave,
    GiveUp,
}

/// Judges an exit by the program's policy.
pub fn judge(lifecycle: &Lifecycle, exit: Exit) -> Verdict {
    if let Exit::Code(code) = exit
        && lifecycle.permanent_exit_codes.contains(&code)
    {
        return Verdict::GiveUp;
    }
    match lifecycle.restart {
        RestartPolicy::Always => Verdict::Restart,
        RestartPolicy::OnFailure if is_success(lifecycle, exit) => Verdict::Leave,
        RestartPolicy::OnFailure => Verdict::Restart,
        RestartPolicy::Never => Verdict::Leave,
    }
}

/// Whether the program's policy calls this exit a success.
pub fn is_success(lifecycle: &Lifecycle, exit: Exit) -> bool {
    match exit {
        Exit::Code(code) => lifecycle.success_exit_codes.contains(&code),
        Exit::Signal { .. } | Exit::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::bench::program;

    fn verdict(restart: RestartPolicy, exit: Exit) -> Verdict {
        let mut lifecycle = program("web").lifecycle;
        lifecycle.restart = restart;
        lifecycle.permanent_exit_codes = vec![64];
        judge(&lifecycle, exit)
    }

    #[test]
    fn each_policy_judges_each_exit_as_the_table_says() {
        use RestartPolicy::{Always, Never, OnFailure};
        use Verdict::{GiveUp, Leave, Restart};
        let killed = Exit::Signal { signal: 9, core_dumped: false };
        for (exit, expected) in [
            (Exit::Code(64), [GiveUp, GiveUp, GiveUp]),
            (Exit::Code(0), [Restart, Leave, Leave]),
            (Exit::Code(3), [Restart, Restart, Leave]),
            (killed, [Restart, Restart, Leave]),
            (Exit::Unknown, [Restart, Restart, Leave]),
        ] {
            assert_eq!([Always, OnFailure, Never].map(|policy| verdict(policy, exit)), expected);
        }
    }
}
