//! systemd's descriptor store, in a real systemd: what ends while keeper and brain are both dead
//! keeps its last words and its exit status.

use crate::harness::run_under_systemd;
use crate::proc;

#[test]
fn what_ends_while_no_part_of_mend_lives_is_known_to_the_next_one() {
    // Long enough for the programs to end while nobody is there.
    let service = "RestartSec=2";
    let without = ["MEND_TEST_NO_INFO_EXIT=1"];
    let variables: &[&str] = if proc::keeps_exit_status_in_pidfds() { &[] } else { &without };
    run_under_systemd(service, variables, "gap", &[]);
}
