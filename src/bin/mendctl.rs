//! The client.

use std::process::ExitCode;

fn main() -> ExitCode {
    mendd::client::main()
}
