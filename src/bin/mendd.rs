//! The daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    mendd::daemon::main()
}
